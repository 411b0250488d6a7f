//! Numbered steps, and how long each of them took.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The steps of a walk through the product.
pub(crate) struct Steps {
    total: usize,
    taken: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// As many steps as there will be.
    pub(crate) const fn new(total: usize) -> Self {
        Self {
            total,
            taken: Vec::new(),
        }
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// Those of the step.
    pub(crate) fn step<T>(
        &mut self,
        title: &'static str,
        step: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        println!("\n── {}/{} {title}", self.taken.len() + 1, self.total);
        let started = Instant::now();
        let done = step()?;
        self.taken.push((title, started.elapsed()));
        Ok(done)
    }

    /// Prints how long each step took.
    pub(crate) fn summary(&self) {
        println!("\n── What took how long");
        for (index, (title, time)) in self.taken.iter().enumerate() {
            println!("{:>3} {title:<60} {:>8.1} s", index + 1, time.as_secs_f64());
        }
        let total: Duration = self.taken.iter().map(|(_, time)| *time).sum();
        println!("    {:<60} {:>8.1} s", "in all", total.as_secs_f64());
    }
}
