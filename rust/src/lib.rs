//! The extension of the Python package `vmsavedstate`: XPRESS and page tokens, and tables of a million entries.
//!
//! This file is the boundary to Python; the crates `codec` and `tables` know nothing of it. Decoding and encoding release
//! the interpreter lock. Every function of the codec has a fallback of the same name in `src/vmsavedstate/codec/`, those of
//! tables in `src/vmsavedstate/containers/hvstorage/`.

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vmsavedstate_codec::{tokens, xpress};
use vmsavedstate_tables as tables;

/// Below this many bytes the lock is kept: handing it over costs more than the work.
const RELEASE_FROM: usize = 16 * 1024;

/// A bytes object of `size`, filled by `work`.
///
/// `PyBytes::new_with` clears the memory while it holds the interpreter lock, which costs as much as a quarter of the
/// decoding (page faults of fresh memory) and keeps threads from scaling. Here that happens without the lock.
fn new_bytes<'py, T: Send>(
    py: Python<'py>,
    size: usize,
    work: impl FnOnce(&mut [u8]) -> T + Send,
) -> PyResult<(Bound<'py, PyBytes>, T)> {
    let length = isize::try_from(size).map_err(|_| PyMemoryError::new_err("output size"))?;
    // SAFETY: a new bytes object nobody else knows yet; a null pointer becomes the Python error.
    let (bytes, start) = unsafe {
        let object = pyo3::ffi::PyBytes_FromStringAndSize(std::ptr::null(), length);
        let bytes = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        let start = pyo3::ffi::PyBytes_AsString(bytes.as_ptr()) as usize;
        (bytes, start)
    };
    let fill = || {
        let start = start as *mut u8;
        // SAFETY: `size` bytes of the object above, which lives until after this call; cleared before they become a slice.
        let out = unsafe {
            std::ptr::write_bytes(start, 0, size);
            std::slice::from_raw_parts_mut(start, size)
        };
        work(out)
    };
    let result = if size >= RELEASE_FROM { py.detach(fill) } else { fill() };
    Ok((bytes, result))
}

/// (output, message, position, produced); the message is empty when all went well.
#[pyfunction]
fn xpress_decode<'py>(
    py: Python<'py>,
    data: &[u8],
    size: usize,
) -> PyResult<(Bound<'py, PyBytes>, String, usize, usize)> {
    let (bytes, result) = new_bytes(py, size, |out| xpress::decode(data, out))?;
    Ok(match result {
        Ok(()) => (bytes, String::new(), 0, size),
        Err(refusal) => (PyBytes::new(py, b""), refusal.message, refusal.position, refusal.produced),
    })
}

#[pyfunction]
fn xpress_encode<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
    let packed = py.detach(|| xpress::encode(data));
    PyBytes::new(py, &packed)
}

type ScanAnswer<'py> = (Bound<'py, PyBytes>, usize, usize, u32, String);

#[pyfunction]
fn scan<'py>(
    py: Python<'py>,
    window: &[u8],
    base: usize,
    position: usize,
    produced: usize,
    size: usize,
    stop: usize,
) -> PyResult<ScanAnswer<'py>> {
    if size > u32::MAX as usize {
        return Err(PyValueError::new_err("a stored block is smaller than 4 GiB"));
    }
    let found = tokens::scan(window, base, position, produced, size, stop);
    let mut packed = Vec::with_capacity(found.segments.len() * tokens::SEGMENT_SIZE);
    for field in found.segments.iter().flatten() {
        packed.extend_from_slice(&field.to_le_bytes());
    }
    Ok((PyBytes::new(py, &packed), found.position, found.produced, found.state, found.reason))
}

type Bad = Vec<(usize, usize, String)>;

#[pyfunction]
fn decode<'py>(
    py: Python<'py>,
    data: &[u8],
    base: usize,
    segments: &[u8],
    start: usize,
    size: usize,
) -> PyResult<(Bound<'py, PyBytes>, Bad)> {
    if start > tokens::BLOCK || size > tokens::BLOCK {
        return Err(PyValueError::new_err("the range leaves the block"));
    }
    let unpacked = segments.chunks_exact(tokens::SEGMENT_SIZE).map(|raw| {
        let mut segment: tokens::Segment = [0; 5];
        for (field, part) in segment.iter_mut().zip(raw.chunks_exact(4)) {
            *field = u32::from_le_bytes([part[0], part[1], part[2], part[3]]);
        }
        segment
    });
    new_bytes(py, size, |out| tokens::decode(data, base, unpacked, start, out))
}

#[pyfunction]
fn encode_block<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if data.is_empty() || !data.len().is_multiple_of(tokens::PAGE) || data.len() > tokens::BLOCK {
        return Err(PyValueError::new_err(format!("a block is 1 to 256 pages, not {:#x} bytes", data.len())));
    }
    let packed = py.detach(|| tokens::encode_block(data));
    Ok(PyBytes::new(py, &packed))
}

fn packed<'py, T: Copy, const N: usize>(
    py: Python<'py>,
    values: &[T],
    raw: impl Fn(T) -> [u8; N],
) -> Bound<'py, PyBytes> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| raw(*value)).collect();
    PyBytes::new(py, &bytes)
}

type Columns<'py> = (u64, Bound<'py, PyBytes>, [Bound<'py, PyBytes>; 6]);

/// (groups, places of other entries, end): a group is (parent, prefix, [numbers, entries, offsets, sizes, sequences, external]).
#[pyfunction]
fn scan_keys<'py>(
    py: Python<'py>,
    data: &[u8],
    start: usize,
    base: u64,
) -> PyResult<(Vec<Columns<'py>>, Vec<u32>, usize)> {
    if data.len() > u32::MAX as usize {
        return Err(PyValueError::new_err("a key table is smaller than 4 GiB"));
    }
    let found = tables::scan_keys(data, start, base);
    let groups = found.groups.iter().map(|group| {
        let columns = [
            packed(py, &group.numbers, u64::to_ne_bytes),
            packed(py, &group.entries, u64::to_ne_bytes),
            packed(py, &group.offsets, u64::to_ne_bytes),
            packed(py, &group.sizes, u32::to_ne_bytes),
            packed(py, &group.sequences, u32::to_ne_bytes),
            PyBytes::new(py, &group.external),
        ];
        (group.parent, PyBytes::new(py, &group.prefix), columns)
    });
    Ok((groups.collect(), found.others, found.end))
}

/// (offsets, sizes, places of other entries).
#[pyfunction]
fn scan_objects<'py>(py: Python<'py>, data: &[u8]) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, Vec<u32>)> {
    if data.len() > u32::MAX as usize {
        return Err(PyValueError::new_err("an object table is smaller than 4 GiB"));
    }
    let found = tables::scan_objects(data);
    let (offsets, sizes) = (packed(py, &found.offsets, u64::to_ne_bytes), packed(py, &found.sizes, u32::to_ne_bytes));
    Ok((offsets, sizes, found.others))
}

#[pymodule]
fn _extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(xpress_decode, module)?)?;
    module.add_function(wrap_pyfunction!(xpress_encode, module)?)?;
    module.add_function(wrap_pyfunction!(scan, module)?)?;
    module.add_function(wrap_pyfunction!(decode, module)?)?;
    module.add_function(wrap_pyfunction!(encode_block, module)?)?;
    module.add_function(wrap_pyfunction!(scan_keys, module)?)?;
    module.add_function(wrap_pyfunction!(scan_objects, module)?)?;
    Ok(())
}
