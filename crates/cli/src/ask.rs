//! Asking before something disruptive.

use std::io::{BufRead, IsTerminal};

use crate::Context;
use crate::failure::Failure;

/// Tells what would happen and asks. Where nobody can answer, that is a refusal.
pub(crate) fn confirm(
    what: &str,
    question: &str,
    hint: &str,
    context: &Context,
) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let text = format!("this needs a yes, and nobody can be asked:\n  {}", {
            what.trim_end().replace('\n', "\n  ")
        });
        return Err(Failure::refused(text).hint(hint));
    }
    context.output.message(what);
    context.output.message(&format!("{question} [y/N] "));
    let mut answer = String::new();
    // No answer is no.
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::refused("not confirmed; nothing was done").hint(hint))
    }
}
