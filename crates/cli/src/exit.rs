//! How the program ends.

use std::process::ExitCode;

/// The exit codes, which scripts may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it is done, or it holds.
    Done,
    /// 1: it does not hold, or the input was refused; nothing was changed.
    Refused,
    /// 2: the command line is not right.
    Usage,
    /// 3: it could not be carried out.
    Failed,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Failed => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
