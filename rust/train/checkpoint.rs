//! Files of tensors, in the format of safetensors: a header in JSON, which names dtypes, shapes, places and a text of the
//! writer's, then the numbers.
//!
//! Owns the header, by the `safetensors` crate. Promises that whatever bytes come in, what goes out is either tensors whose
//! places lie inside those bytes, or an error: nothing is allocated but the header's own entries, and the header has a limit.
//! The same tensors and text make the same bytes. Leaves files, and what the text means, to Python.

use crate::error::Error;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::fmt::Display;
use std::ops::Range;

/// The longest header that is read, in bytes: parsing takes some tens of bytes for each of its characters.
pub const LONGEST_HEADER: usize = 8 << 20;
/// The key of the writer's text in the header's metadata.
pub const KEY: &str = "lamella";
/// Bytes before the header: its length.
const LENGTH: usize = size_of::<u64>();

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What its numbers are: "F32", "F64", ...
    pub dtype: String,
    /// Its sizes, the last one lying without gaps.
    pub shape: Vec<usize>,
    /// Its bytes in the whole file.
    pub bytes: Range<usize>,
}

/// The beginning of a file with these tensors, f32 or f64, whose numbers follow it in their order, without gaps.
///
/// # Errors
/// [`Error::Value`] for another dtype, a repeated name, sizes that overflow, or a header that nobody would read.
pub fn header(tensors: &[(String, String, Vec<usize>)], text: String) -> Result<Vec<u8>, Error> {
    let mut end = 0usize;
    let mut infos = Vec::with_capacity(tensors.len());
    for (n, (name, dtype, shape)) in tensors.iter().enumerate() {
        if tensors[..n].iter().any(|(other, ..)| other == name) {
            return Err(Error::expected(format!("tensor {name:?}"), "a name of its own", "it twice"));
        }
        let dtype = match dtype.as_str() {
            "F32" => Dtype::F32,
            "F64" => Dtype::F64,
            _ => return Err(Error::expected(format!("tensor {name:?}"), "F32 or F64", dtype)),
        };
        let overflow =
            || Error::expected(format!("tensor {name:?}"), "sizes that memory can hold", format!("{shape:?}"));
        let bytes = shape.iter().try_fold(dtype.bitsize() / 8, |all, &n| all.checked_mul(n)).ok_or_else(overflow)?;
        let begin = end;
        end = begin.checked_add(bytes).ok_or_else(overflow)?;
        infos.push((name.clone(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (begin, end) }));
    }
    let metadata = [(KEY.to_owned(), text)].into_iter().collect();
    let metadata = Metadata::new(Some(metadata), infos).map_err(|error| unreadable(&error))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| Error::value(format!("header: {error}")))?;
    json.resize(json.len().next_multiple_of(LENGTH), b' ');
    check_length(json.len())?;
    let mut begin = (json.len() as u64).to_le_bytes().to_vec();
    begin.append(&mut json);
    Ok(begin)
}

/// The tensors of a file of `size` bytes in the order in which they lie, and the text of its writer, if it has one. `head` is
/// the file's beginning, at least to the end of the header: numbers need not be there yet.
///
/// # Errors
/// [`Error::Value`] for anything but the beginning of a whole file of this format and size.
pub fn parse(head: &[u8], size: usize) -> Result<(Vec<Entry>, Option<String>), Error> {
    let whole = |got: String| Error::expected("file", "a whole safetensors file", got);
    let Some(length) = head.first_chunk::<LENGTH>() else {
        return Err(whole(format!("{} bytes", head.len())));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > size.saturating_sub(LENGTH) {
        return Err(whole(format!("{size} bytes with a header of {length}")));
    }
    check_length(length)?;
    let data = LENGTH + length;
    let Some(json) = head.get(LENGTH..data) else {
        return Err(whole(format!("{} bytes of a header of {length}", head.len() - LENGTH)));
    };
    let metadata: Metadata = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
    if metadata.data_len() != size - data {
        return Err(whole(format!("{} bytes for numbers that take {}", size - data, metadata.data_len())));
    }
    let mut entries = Vec::new();
    for name in metadata.offset_keys() {
        // Offsets ascend without gaps (the crate looks), and the last is the file's end.
        let Some(TensorInfo { dtype, shape, data_offsets: (begin, end) }) = metadata.info(&name) else { continue };
        let (dtype, shape) = (dtype.to_string(), shape.clone());
        entries.push(Entry { name, dtype, shape, bytes: data + begin..data + end });
    }
    let text = metadata.metadata().as_ref().and_then(|texts| texts.get(KEY).cloned());
    Ok((entries, text))
}

fn check_length(header: usize) -> Result<(), Error> {
    if header <= LONGEST_HEADER {
        return Ok(());
    }
    Err(Error::expected("file", format!("a header of at most {LONGEST_HEADER} bytes"), header))
}

fn unreadable(error: &dyn Display) -> Error {
    Error::value(format!("file: expected a whole safetensors file, got a header that is none: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{Entry, header, parse};
    use proptest::prelude::*;

    fn file() -> Vec<u8> {
        let tensor = |name: &str, dtype: &str, shape: &[usize]| (name.to_owned(), dtype.to_owned(), shape.to_vec());
        let tensors = [tensor("W1", "F64", &[2, 3]), tensor("b1", "F32", &[2]), tensor("none", "F32", &[0, 7])];
        let mut file = header(&tensors, r#"{"format": 1}"#.into()).unwrap();
        file.extend(0..56u8);
        file
    }

    #[test]
    fn what_is_written_is_read() {
        let file = file();
        let begin = file.len() - 56;
        let (entries, text) = parse(&file[..begin], file.len()).unwrap();
        let entry = |name: &str, dtype: &str, shape: &[usize], from: usize, to: usize| Entry {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
            bytes: begin + from..begin + to,
        };
        let b = entry("b1", "F32", &[2], 48, 56);
        assert_eq!(entries, [entry("W1", "F64", &[2, 3], 0, 48), b, entry("none", "F32", &[0, 7], 56, 56)]);
        assert_eq!(text.as_deref(), Some(r#"{"format": 1}"#));
        assert_eq!(begin % 8, 0);
    }

    #[test]
    fn no_beginning_of_a_file_is_one() {
        let file = file();
        (0..file.len()).for_each(|n| assert!(parse(&file[..n], n).is_err(), "{n} bytes"));
    }

    #[test]
    fn tensors_that_no_file_holds_are_refused() {
        let wrong = |name: &str, dtype: &str, shape: &[usize]| {
            let first = ("W1".to_owned(), "F32".to_owned(), vec![1]);
            header(&[first, (name.to_owned(), dtype.to_owned(), shape.to_vec())], String::new())
        };
        assert!(wrong("W2", "F32", &[2]).is_ok());
        assert!(wrong("W1", "F32", &[2]).is_err());
        assert!(wrong("W2", "I32", &[2]).is_err());
        assert!(wrong("W2", "F64", &[usize::MAX, 2]).is_err());
        assert!(wrong("W2", "F64", &[usize::MAX / 8]).is_err());
        assert!(header(&[], "x".repeat(super::LONGEST_HEADER)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_places_inside_them_or_an_error(
            at in 0..400usize, with in prop::collection::vec(any::<u8>(), 1..9), tail in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut file = file();
            let at = at % (file.len() - with.len());
            file[at..at + with.len()].copy_from_slice(&with);
            file.extend(tail);
            if let Ok((entries, _)) = parse(&file, file.len()) {
                prop_assert!(entries.iter().all(|entry| file.get(entry.bytes.clone()).is_some()));
            }
        }

        #[test]
        fn lies_in_the_header_give_places_inside_the_file_or_an_error(
            begin in any::<u64>(), end in any::<u64>(), near in 0..80u64, shape in prop::collection::vec(any::<u64>(), 0..4), dtype in 0..4usize,
        ) {
            let dtype = ["F32", "BOOL", "F4", "I128"][dtype];
            for (begin, end) in [(begin, end), (0, near), (near, u64::MAX), (0, end)] {
                let json = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}}}"#);
                let mut file = (json.len() as u64).to_le_bytes().to_vec();
                file.extend(json.bytes());
                file.extend([0; 40]);
                if let Ok((entries, _)) = parse(&file, file.len()) {
                    prop_assert!(entries.iter().all(|entry| file.get(entry.bytes.clone()).is_some()));
                }
            }
        }
    }
}
