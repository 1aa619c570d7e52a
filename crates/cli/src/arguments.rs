//! The command line. Completions and man pages come from here, too.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::environment::VARIABLES;
use crate::output::{Color, Format};

/// Cut a bare-metal server into slices: KVM guests that own their cores, memory and NICs
#[derive(Debug, Parser)]
#[command(
    name = "bmslice",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 does not hold or refused because of the input, 2 usage, 3 could not be carried out",
    after_long_help = format!(
        "Exit codes: 0 done, 1 does not hold or refused because of the input, 2 usage, 3 could not be carried out\n\n{VARIABLES}"
    )
)]
pub struct Bmslice {
    /// Form of the data on standard output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM"
    )]
    pub output: Format,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a server: CPUs, caches, NUMA, memory, NICs, IOMMU, boot loader, libvirt
    #[command(long_about = commands::inspect::ABOUT)]
    Inspect(commands::inspect::Arguments),
    /// Write an archive of what `inspect` reads, to look at and to plan with elsewhere
    #[command(long_about = commands::capture::ABOUT)]
    Capture(commands::capture::Arguments),
    /// Examine whether a server is fit to be sliced
    #[command(long_about = commands::doctor::ABOUT)]
    Doctor(commands::doctor::Arguments),
    /// Compute the placement and show it
    #[command(long_about = commands::plan::ABOUT)]
    Plan(commands::plan::Arguments),
    /// Write every artifact of a plan to a folder
    #[command(long_about = commands::render::ABOUT)]
    Render(commands::render::Arguments),
    /// Make it so on this server
    #[command(long_about = commands::apply::ABOUT)]
    Apply(commands::apply::Arguments),
    /// Prove that what runs is the plan
    #[command(long_about = commands::verify::ABOUT)]
    Verify(commands::verify::Arguments),
    /// Show what is sliced here
    #[command(long_about = commands::status::ABOUT)]
    Status(commands::status::Arguments),
    /// Give slices, or the whole server, back as it was
    #[command(long_about = commands::release::ABOUT)]
    Release(commands::release::Arguments),
    /// Go on after a boot; called by the units that `apply` installs
    #[command(hide = true)]
    Resume(commands::resume::Arguments),
    /// Print the JSON schema of the spec, for editors
    #[command(long_about = commands::schema::ABOUT)]
    Schema(commands::schema::Arguments),
    /// Print a completion script for a shell
    Completions(commands::completions::Arguments),
    /// Print the manual page, or write one for each command
    Man(commands::man::Arguments),
}
