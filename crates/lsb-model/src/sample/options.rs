//! How the next token is chosen, and which settings make sense.

use crate::error::{Error, Result};

/// How the next token is chosen. The default is greedy: the most likely token, always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// What logits are divided by; 0 chooses the most likely token.
    pub temperature: f32,
    /// Only this many most likely tokens stay; 0 keeps all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability stay (Holtzman et al. 2020); 1 keeps all.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the most likely one stay (Nguyen et al. 2024); 0 keeps all.
    pub min_p: f32,
    /// What logits of recent tokens are divided by (multiplied with, below 0); 1 leaves them.
    pub repetition_penalty: f32,
    /// How many recent tokens the penalty looks at; 0 looks at all.
    pub repetition_window: usize,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 0,
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`Error::Input`] that names the setting, its value and its range.
    pub fn check(&self) -> Result<()> {
        let settings = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "from 0 to 100"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            (
                "repetition penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0,
                "above 0 and at most 100",
            ),
        ];
        match settings.iter().find(|(_, _, fits, _)| !fits) {
            None => Ok(()),
            Some((name, value, _, range)) => {
                Err(Error::Input(lsb_format::Error::argument(format!("{name} is {value}: must be {range}"))))
            }
        }
    }
}
