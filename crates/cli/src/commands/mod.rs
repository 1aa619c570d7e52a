//! One file per command: its arguments, and what it does with them.

pub mod apply;
pub mod capture;
pub mod completions;
pub mod doctor;
pub mod inspect;
pub mod man;
pub mod plan;
pub mod release;
pub mod render;
pub mod resume;
pub mod schema;
pub mod status;
pub mod verify;

use crate::Context;
use crate::arguments::Command;
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Inspect(arguments) => inspect::run(arguments, context),
        Command::Capture(arguments) => capture::run(arguments, context),
        Command::Doctor(arguments) => doctor::run(arguments, context),
        Command::Plan(arguments) => plan::run(arguments, context),
        Command::Render(arguments) => render::run(arguments, context),
        Command::Apply(arguments) => apply::run(arguments, context),
        Command::Verify(arguments) => verify::run(arguments, context),
        Command::Status(arguments) => status::run(arguments, context),
        Command::Release(arguments) => release::run(arguments, context),
        Command::Resume(arguments) => resume::run(arguments, context),
        Command::Schema(arguments) => schema::run(arguments, context),
        Command::Completions(arguments) => completions::run(arguments, context),
        Command::Man(arguments) => man::run(arguments, context),
    }
}
