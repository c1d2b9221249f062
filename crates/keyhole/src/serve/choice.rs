//! Choices that depend on the machine: I/O interface and AES engine.

use keyhole_core::suite;

use super::error::ServeError;
use crate::cli::serve::{EngineChoice, IoMode};
use crate::engine::AnyEngine;
use crate::platform::Interface;
use crate::uring;

/// Returns the requested I/O interface, if the system allows it.
pub(super) fn choose_io(mode: IoMode) -> Result<Interface, ServeError> {
    if mode == IoMode::Epoll {
        return Ok(Interface::Epoll);
    }
    match uring::probe() {
        Ok(()) => Ok(Interface::Uring),
        Err(error) if mode == IoMode::Uring => Err(ServeError::NoUring(error)),
        Err(error) => {
            eprintln!("keyhole: the system refuses io_uring ({error}); using epoll and plain file I/O");
            Ok(Interface::Epoll)
        }
    }
}

/// Returns the requested engine after it has passed the self-test suite on this machine.
pub(super) fn choose_engine(choice: EngineChoice) -> Result<AnyEngine, ServeError> {
    let passes = |engine: AnyEngine| suite::run(&engine, &mut vec![0; suite::SCRATCH_LEN]);
    let engine = match choice {
        EngineChoice::Portable => AnyEngine::Portable,
        EngineChoice::Accelerated | EngineChoice::Auto => AnyEngine::Accelerated,
    };
    match (passes(engine), choice) {
        (Ok(()), _) => Ok(engine),
        (Err(failure), EngineChoice::Auto) => {
            eprintln!("keyhole: the accelerated engine failed its self-test ({failure}); using the portable one");
            passes(AnyEngine::Portable).map_err(ServeError::PortableSelfTest)?;
            Ok(AnyEngine::Portable)
        }
        (Err(failure), _) => Err(ServeError::SelfTest(failure)),
    }
}
