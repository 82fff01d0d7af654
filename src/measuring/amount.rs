//! How much memory: a share of something, or a size.

use crate::config::Ram;
use crate::error::{Error, Result};
use crate::numbers::too_small;
use serde::Serialize;

/// A share or a size, with the text it was read from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Amount {
    /// As it was written: `40%`.
    pub text: String,
    #[serde(skip)]
    ram: Ram,
}

impl Amount {
    /// Reads `70%,40%,6GiB`, the value of `option`. None may be there twice.
    pub fn parse_list(option: &str, list: &str) -> Result<Vec<Self>> {
        let mut amounts: Vec<Self> = Vec::new();
        for text in list.split(',').map(str::trim) {
            let wrong = |allowed: &str| Error::setting(option, text, allowed);
            let ram = match Ram::parse(option, text) {
                Ok(ram @ (Ram::Bytes(_) | Ram::Percent(_))) => ram,
                Err(error) if too_small(text).is_some() => return Err(error),
                Ok(Ram::Auto | Ram::IfNeeded) | Err(_) => {
                    return Err(wrong(
                        "expected shares above 0% and up to 100%, or sizes above 0 such as 6GiB, \
                         separated by commas",
                    ));
                }
            };
            if amounts.iter().any(|amount| amount.ram == ram) {
                return Err(wrong("it is there twice"));
            }
            let text = text.to_string();
            amounts.push(Self { text, ram });
        }
        Ok(amounts)
    }

    /// In bytes, when a share is one of `whole` bytes.
    pub fn of(&self, whole: u64) -> u64 {
        match self.ram {
            Ram::Bytes(n) => n,
            Ram::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
            Ram::Auto | Ram::IfNeeded => unreachable!("refused when it was read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_sizes_are_read_in_their_order() {
        let amounts = Amount::parse_list("--cap", "70%, 6GiB,12.5%").unwrap();
        let bytes: Vec<u64> = amounts.iter().map(|amount| amount.of(1000)).collect();
        assert_eq!(bytes, [700, 6 << 30, 125]);
        assert_eq!(amounts[1].text, "6GiB");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (list, value, why) in [
            ("70%,auto", "auto", "6GiB"),
            ("0%", "0%", "above 0%"),
            ("101%", "101%", "100%"),
            ("", "", "separated by commas"),
            ("70%,,40%", "", "separated by commas"),
            ("6 parrots", "6 parrots", "6GiB"),
            ("1MiB,1048576", "1048576", "twice"),
            ("70%,6", "6", "6 bytes; write 6GiB"),
        ] {
            let error = Amount::parse_list("--cap", list).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--cap={value}: ")), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }
}
