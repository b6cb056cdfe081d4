//! CBOR values and Python objects, both ways.

use ciborium::Value;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// How deep a value from Python may be nested; no request of the protocol goes deeper than four levels.
const DEPTH: u32 = 16;

/// A Python object of a value. Tags are passed over; a key that is a list becomes a tuple.
pub(crate) fn to_python(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        Value::Integer(number) => i128::from(number).into_pyobject(py)?.into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
        Value::Float(number) => PyFloat::new(py, number).into_any(),
        Value::Text(text) => PyString::new(py, &text).into_any(),
        Value::Bool(truth) => PyBool::new(py, truth).to_owned().into_any(),
        Value::Tag(_, inner) => to_python(py, *inner)?,
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Map(entries) => {
            let dict = PyDict::new(py);
            for (key, value) in entries {
                let key = match key {
                    Value::Array(items) => {
                        let items = items.into_iter().map(|item| to_python(py, item));
                        PyTuple::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
                    }
                    key => to_python(py, key)?,
                };
                dict.set_item(key, to_python(py, value)?)?;
            }
            dict.into_any()
        }
        // Null, and what a later version of the encoding may know.
        _ => py.None().into_bound(py),
    })
}

/// The value of a Python object: None, bool, int, str, bytes and what is like them, lists, tuples, dictionaries.
pub(crate) fn to_cbor(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    nested(object, DEPTH)
}

fn nested(object: &Bound<'_, PyAny>, depth: u32) -> PyResult<Value> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(PyValueError::new_err("the request is nested too deeply"));
    };
    if object.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Value::Bytes(bytes.as_bytes().to_vec()));
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return Ok(Value::Bytes(bytes.to_vec()));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Value::Text(text.to_str()?.to_owned()));
    }
    if let Ok(truth) = object.cast::<PyBool>() {
        return Ok(Value::Bool(truth.is_true()));
    }
    if object.is_instance_of::<PyInt>() {
        let number: i128 = object.extract()?;
        let number = ciborium::value::Integer::try_from(number);
        return Ok(Value::Integer(number.map_err(|_| PyValueError::new_err("the number is too large"))?));
    }
    if let Ok(number) = object.cast::<PyFloat>() {
        return Ok(Value::Float(number.value()));
    }
    if let Ok(dict) = object.cast::<PyDict>() {
        let entries = dict.iter().map(|(key, value)| Ok((nested(&key, depth)?, nested(&value, depth)?)));
        return Ok(Value::Map(entries.collect::<PyResult<_>>()?));
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let items = object.try_iter()?.map(|item| nested(&item?, depth));
        return Ok(Value::Array(items.collect::<PyResult<_>>()?));
    }
    // memoryview, array and their like.
    let py = object.py();
    let bytes = py.get_type::<PyBytes>().call1((object,)).ok().filter(|_| object.hasattr("__len__").unwrap_or(false));
    match bytes.as_ref().and_then(|bytes| bytes.cast::<PyBytes>().ok()) {
        Some(bytes) => Ok(Value::Bytes(bytes.as_bytes().to_vec())),
        None => Err(PyTypeError::new_err(format!("a request cannot hold a value of {}", object.get_type().name()?))),
    }
}
