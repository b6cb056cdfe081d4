//! `pigeonfs._native`: sessions with a daemon for Python's asyncio. The package's Python code is its only caller.
//!
//! ```text
//!   event loop ── requests, a channel ──▶ a thread with a tokio runtime and one `thin::Client`
//!       ▲                                      │
//!       └─ drain() ◀─ eventfd ◀─ outcomes, a queue
//! ```
//!
//! The thread of a session touches no Python object and never takes the interpreter's lock: it leaves what happened in a
//! queue and rings an eventfd that the event loop watches. So nothing here can hold the interpreter up, or outlive it. What
//! crosses the border are the protocol's own frames as dictionaries; their meaning is Python's affair.

mod convert;
mod outcomes;
mod session;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The value that CBOR bytes hold. Tags are passed over.
#[pyfunction]
fn cbor_loads<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let value = pigeonfs::thin::frame::decode(data).map_err(|error| PyValueError::new_err(error.to_string()))?;
    convert::to_python(py, value)
}

/// Sessions with a daemon, and CBOR.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<session::Session>()?;
    module.add_function(wrap_pyfunction!(cbor_loads, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
