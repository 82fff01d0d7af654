//! What somebody has chosen of where weights go.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// An option of llama.cpp's.
struct Choice {
    names: &'static [&'static str],
    variable: &'static str,
    /// Whether it may put experts on a device.
    is_of_experts: bool,
}

const fn choice(names: &'static [&'static str], variable: &'static str) -> Choice {
    Choice {
        names,
        variable,
        is_of_experts: false,
    }
}

const fn of_experts(names: &'static [&'static str], variable: &'static str) -> Choice {
    Choice {
        is_of_experts: true,
        ..choice(names, variable)
    }
}

const TENSORS: &str = "LLAMA_ARG_OVERRIDE_TENSOR";
const CACHE: &str = "LLAMA_ARG_MOE_CACHE_MIB";

/// With one of these nothing is chosen for anybody.
const CHOICES: &[Choice] = &[
    of_experts(
        &["-ngl", "--gpu-layers", "--n-gpu-layers"],
        "LLAMA_ARG_N_GPU_LAYERS",
    ),
    of_experts(&["-ot", "--override-tensor"], TENSORS),
    of_experts(&["-ncmoe", "--n-cpu-moe"], "LLAMA_ARG_N_CPU_MOE"),
    choice(&["-cmoe", "--cpu-moe"], "LLAMA_ARG_CPU_MOE"),
    choice(&["-ncffn", "--n-cpu-ffn"], "LLAMA_ARG_N_CPU_FFN"),
    choice(&["--moe-cache-mib"], CACHE),
    choice(&["-sm", "--split-mode"], "LLAMA_ARG_SPLIT_MODE"),
    choice(&["-ts", "--tensor-split"], "LLAMA_ARG_TENSOR_SPLIT"),
    choice(&["-fit", "--fit"], "LLAMA_ARG_FIT"),
];

/// What arguments and variables choose, as they are written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Choices {
    /// All of it.
    pub all: Vec<String>,
    /// What may put experts on a device.
    pub of_experts: Vec<String>,
    /// The one of these that names tensors.
    pub of_tensors: Option<String>,
    /// Whether the size of a device's cache is among them.
    pub has_cache: bool,
}

impl Choices {
    /// Of a program with these arguments, where `has` knows the variables.
    pub fn of(args: &[OsString], has: impl Fn(&str) -> bool) -> Self {
        let mut choices = Self::default();
        for choice in CHOICES {
            let given = args.iter().find(|arg| is_one(arg, choice.names));
            let given = given.map(|arg| arg.to_string_lossy().into_owned());
            let Some(named) =
                given.or_else(|| has(choice.variable).then(|| choice.variable.into()))
            else {
                continue;
            };
            choices.has_cache |= choice.variable == CACHE;
            if choice.variable == TENSORS {
                choices.of_tensors = Some(named.clone());
            }
            choices
                .of_experts
                .extend(choice.is_of_experts.then(|| named.clone()));
            choices.all.push(named);
        }
        choices
    }
}

/// llama.cpp takes underscores for dashes in long options.
fn is_one(arg: &OsStr, names: &[&str]) -> bool {
    let bytes = arg.as_bytes();
    let is_long = bytes.starts_with(b"--");
    let dashed = |byte: &u8| match byte {
        b'_' if is_long => b'-',
        byte => *byte,
    };
    names
        .iter()
        .any(|name| bytes.iter().map(dashed).eq(name.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(line: &str, variables: &[&str]) -> Choices {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Choices::of(&args, |name| variables.contains(&name))
    }

    #[test]
    fn any_spelling_is_a_choice_and_a_variable_too() {
        let none = choices(
            "llama-cli -m a.gguf -c 512 -fitt 4096 --device RPC0 -ub 64",
            &[],
        );
        assert_eq!(none, Choices::default());
        let line = "x --n_gpu_layers 99 -cmoe --moe-cache-mib 0 -fit off";
        let found = choices(line, &["LLAMA_ARG_N_CPU_MOE", "LLAMA_ARG_CTX_SIZE"]);
        assert_eq!(found.of_experts, ["--n_gpu_layers", "LLAMA_ARG_N_CPU_MOE"]);
        let all = [
            "--n_gpu_layers",
            "LLAMA_ARG_N_CPU_MOE",
            "-cmoe",
            "--moe-cache-mib",
            "-fit",
        ];
        assert_eq!(found.all, all);
        assert!(found.has_cache);
        let tensors = choices("x --override_tensor exps=CPU", &[]);
        assert!(!tensors.has_cache);
        assert_eq!(tensors.of_tensors.as_deref(), Some("--override_tensor"));
        assert_eq!(tensors.of_experts, tensors.all);
    }
}
