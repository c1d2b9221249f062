//! The arguments of `keyhole clock`.

use clap::Subcommand;

use super::target::Target;

#[derive(Subcommand, Debug)]
pub(crate) enum ClockCommand {
    /// Set the clock that retention is compared with to the wall clock.
    ///
    /// The node follows the wall clock by leaps of at most --lock-clock-leap; a larger leap ends no
    /// retention before it is accepted here. Check the wall clock first: this cannot be undone.
    Accept(Target),
}
