//! What the arguments of a program of llama.cpp say of the memory that it will take.

use crate::numbers::whole;
use std::ffi::{OsStr, OsString};

/// What is asked of a program, as far as it decides how much memory that takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Tokens of the context; `None` if the program is to choose.
    pub n_ctx: Option<u64>,
    /// Tokens that are computed at once.
    pub n_ubatch: u64,
    /// Whether llama.cpp may choose a shorter context than the model was trained with.
    pub fits_context: bool,
    /// Whether llama.cpp may put any weights on a device, as it likes.
    pub uses_devices: bool,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            n_ctx: None,
            n_ubatch: N_UBATCH,
            fits_context: true,
            uses_devices: true,
        }
    }
}

/// What llama.cpp computes at once if nobody says.
const N_UBATCH: u64 = 512;

const N_CTX: [&str; 2] = ["-c", "--ctx-size"];
const UBATCH: [&str; 2] = ["-ub", "--ubatch-size"];
const FIT: [&str; 2] = ["-fit", "--fit"];
/// With one of these somebody has chosen what is on a device.
const PLACES: [(&[&str], &str); 5] = [
    (
        &["-ngl", "--gpu-layers", "--n-gpu-layers"],
        "LLAMA_ARG_N_GPU_LAYERS",
    ),
    (&["-dev", "--device"], "LLAMA_ARG_DEVICE"),
    (&["-cmoe", "--cpu-moe"], "LLAMA_ARG_CPU_MOE"),
    (&["-ncmoe", "--n-cpu-moe"], "LLAMA_ARG_N_CPU_MOE"),
    (&["-ot", "--override-tensor"], "LLAMA_ARG_OVERRIDE_TENSOR"),
];

impl Asked {
    /// Of a program with these arguments, and with the variables that `variable` knows. An argument comes before a
    /// variable, and the last one of a name before the others, as in llama.cpp.
    pub fn of(args: &[OsString], variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let is = |arg: &OsStr, names: &[&str]| names.iter().any(|name| arg == *name);
        let value = |names: &[&str], name: &str| {
            let at = args.iter().rposition(|arg| is(arg, names));
            let given = at.and_then(|at| args.get(at + 1)).cloned();
            given
                .or_else(|| variable(name))
                .filter(|value| !value.is_empty())
        };
        let number = |names: &[&str], name: &str| {
            let value = value(names, name)?;
            value.to_str().and_then(whole).filter(|n| *n > 0)
        };
        let is_placed = |(names, name): &(&[&str], &str)| {
            args.iter().any(|arg| is(arg, names)) || variable(name).is_some()
        };
        let fit = value(&FIT, "LLAMA_ARG_FIT");
        Self {
            n_ctx: number(&N_CTX, "LLAMA_ARG_CTX_SIZE"),
            n_ubatch: number(&UBATCH, "LLAMA_ARG_UBATCH").unwrap_or(N_UBATCH),
            fits_context: fit.is_none_or(|fit| fit != "off"),
            uses_devices: !PLACES.iter().any(is_placed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, variables: &[(&str, &str)]) -> Asked {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Asked::of(&args, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_last_argument_counts_and_an_argument_before_a_variable() {
        assert_eq!(asked("-m a.gguf -c 0 -fit on", &[]), Asked::default());
        let variables = [("LLAMA_ARG_CTX_SIZE", "512"), ("LLAMA_ARG_FIT", "off")];
        let found = asked("-c 1 --ctx-size 8192 -ub 64", &variables);
        assert_eq!((found.n_ctx, found.n_ubatch), (Some(8192), 64));
        assert!(!found.fits_context && found.uses_devices);
        assert_eq!(asked("-m a.gguf -c", &variables).n_ctx, Some(512));
        for line in ["-ngl 0", "--cpu-moe", "-ot exps=CPU", "--device none"] {
            assert!(!asked(line, &[]).uses_devices, "{line}");
        }
    }
}
