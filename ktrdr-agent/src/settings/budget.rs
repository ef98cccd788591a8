//! What the agent may take of its host.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::schema::values;

/// A part of the host's processors, `5%` or `0.5%`, or `off` for no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuBudget {
    /// Hundredths of a percent.
    of_ten_thousand: Option<u16>,
}

values!(CpuBudget);

impl CpuBudget {
    /// So many percent, at most 100.
    pub const fn percent(n: u16) -> Self {
        Self { of_ten_thousand: Some(n * 100) }
    }

    /// As a fraction of 1; `None` = no bound.
    pub fn fraction(self) -> Option<f64> {
        self.of_ten_thousand.map(|n| f64::from(n) / 10_000.0)
    }
}

impl FromStr for CpuBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "off" {
            return Ok(Self { of_ten_thousand: None });
        }
        let number = text.trim().strip_suffix('%').and_then(|n| n.trim_end().parse::<f64>().ok());
        // Less than a tenth of a percent, and the agent would be above it whatever it did.
        number.filter(|n| (0.1..=100.0).contains(n)).map_or_else(
            || {
                Err(format!(
                    "`{text}` is not a part of this host's processors: write a percentage from 0.1% to 100% (`5%`), or off"
                ))
            },
            |n| {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10,000")]
                let n = (n * 100.0).round() as u16;
                Ok(Self { of_ten_thousand: Some(n) })
            },
        )
    }
}

impl TryFrom<String> for CpuBudget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for CpuBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of_ten_thousand {
            Some(n) => write!(f, "{}%", f64::from(n) / 100.0),
            None => f.write_str("off"),
        }
    }
}

impl From<CpuBudget> for String {
    fn from(budget: CpuBudget) -> String {
        budget.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Override, Settings};
    use super::*;

    #[test]
    fn a_budget_is_a_percentage_or_off() {
        for (text, fraction) in
            [("5%", Some(0.05)), ("0.5%", Some(0.005)), (" 12.25 % ", Some(0.1225)), ("off", None)]
        {
            assert_eq!(text.parse::<CpuBudget>().unwrap().fraction(), fraction, "{text}");
        }
        for text in ["off", "0.1%", "0.25%", "5%", "100%"] {
            assert_eq!(text.parse::<CpuBudget>().unwrap().to_string(), text);
        }
        assert_eq!(CpuBudget::percent(5).to_string(), "5%");
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        for text in ["5", "500%", "-1%", "0%", "0.01%", "NaN%", "%", "", "none", "5 percent", "5%%"] {
            let flag = Override::new("--cpu-budget", "budget.cpu", text);
            let error = Settings::from_text(None, &[], &[flag]).unwrap_err().to_string();
            let want = format!(
                "option --cpu-budget: bad value for `budget.cpu`: `{text}` is not a part of this host's processors: write a \
                 percentage from 0.1% to 100% (`5%`), or off"
            );
            assert_eq!(error, want);
        }
        let file = (std::path::Path::new("f"), "[budget]\ncpu = 5");
        let error = Settings::from_text(Some(file), &[], &[]).unwrap_err().to_string();
        assert!(error.starts_with("f:2: bad value for `budget.cpu`"), "{error}");
    }

    #[test]
    fn it_comes_from_wherever_settings_come_from() {
        let env = [("KTRDR_AGENT_BUDGET__CPU".to_owned(), "2%".to_owned())];
        let flag = [Override::new("--cpu-budget", "budget.cpu", "off")];
        let of = |env: &[(String, String)], flag: &[Override]| {
            Settings::from_text(None, env, flag).unwrap().budget.fraction()
        };
        assert_eq!((of(&[], &[]), of(&env, &[]), of(&env, &flag)), (Some(0.05), Some(0.02), None));
    }
}
