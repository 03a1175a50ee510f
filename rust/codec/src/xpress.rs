//! Plain LZ77 (the XPRESS of MS-XCA, sections 2.3 and 2.4).
//!
//! `codec/xpress.py` is the readable fallback: both make the same bytes and refuse the same input. No unsafe code: every
//! access is checked, so any bytes at all give an error or the right output.

const MIN_MATCH: usize = 3;
/// The encoder passes over matches of three bytes: each saves one byte, and costs every reader more than that.
const SOUGHT: usize = 4;
const WINDOW: usize = 8192;
const CHAIN_DEPTH: usize = 8;
const GOOD_MATCH: usize = 64;
const LONG: usize = 7;
/// Input and output that one round of the fast loop may touch: 32 literals, a match with its longest length form, and
/// copies that overshoot by up to 16 bytes.
const FAST_INPUT: usize = 48;
const FAST_OUTPUT: usize = 64;

/// Why data does not decode: what, at which input byte, after how much output.
#[derive(Debug)]
pub struct Refusal {
    pub message: String,
    pub position: usize,
    pub produced: usize,
}

/// Fills `out`; input behind the byte that completes it is not looked at.
pub fn decode(data: &[u8], out: &mut [u8]) -> Result<(), Refusal> {
    let size = out.len();
    let mut at = 0;
    let mut produced = 0;
    let mut nibble_at: Option<usize> = None;
    'words: while produced < size {
        let Some(word) = data.get(at..at + 4) else {
            return Err(ended(data, produced, size));
        };
        at += 4;
        // The lowest set bit is a sentinel: when it has been shifted out, the flag word is used up.
        let mut flags = (u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as u64) << 32 | 1 << 31;
        // Fast rounds: all that one of them can touch is inside the buffers, so that few checks remain.
        while at + FAST_INPUT <= data.len() && produced + FAST_OUTPUT <= size {
            let run = flags.leading_zeros() as usize;
            copy16(data, at, out, produced);
            if run > 16 {
                copy16(data, at + 16, out, produced + 16);
            }
            at += run;
            produced += run;
            flags = flags << run << 1;
            if flags == 0 {
                continue 'words;
            }
            let window = u32::from_le_bytes(data[at..at + 4].try_into().unwrap_or_default());
            let offset = ((window >> 3) as usize & 0x1FFF) + 1;
            let mut length = window as usize & 7;
            at += 2;
            if length == LONG {
                length = match long_length(data, &mut at, &mut nibble_at) {
                    Ok(length) => length,
                    Err(None) => return Err(ended(data, produced, size)),
                    Err(Some(message)) => return Err(Refusal { message, position: at, produced }),
                };
            }
            length = (length + MIN_MATCH).min(size - produced);
            if offset > produced {
                return Err(too_far(at, produced, offset));
            }
            if length > 16 {
                copy_match(out, produced, offset, length);
            } else if offset >= 8 {
                let window = &mut out[produced - offset..produced + 16];
                window.copy_within(0..8, offset);
                window.copy_within(8..16, offset + 8);
            } else {
                repeat(out, produced, offset);
            }
            produced += length;
        }
        if produced == size {
            return Ok(());
        }
        // Near an end of either buffer: the same, with every length checked.
        loop {
            let run = (flags.leading_zeros() as usize).min(32);
            flags = flags << run << 1;
            let wanted = run.min(size - produced);
            let there = wanted.min(data.len().saturating_sub(at));
            out[produced..produced + there].copy_from_slice(&data[at..at + there]);
            at += there;
            produced += there;
            if there < wanted {
                return Err(ended(data, produced, size));
            }
            if produced == size {
                return Ok(());
            }
            if flags == 0 {
                break;
            }
            let Some(pair) = data.get(at..at + 2) else {
                return Err(ended(data, produced, size));
            };
            let token = u16::from_le_bytes([pair[0], pair[1]]) as usize;
            at += 2;
            let offset = (token >> 3) + 1;
            let mut length = token & 7;
            if length == LONG {
                length = match long_length(data, &mut at, &mut nibble_at) {
                    Ok(length) => length,
                    Err(None) => return Err(ended(data, produced, size)),
                    Err(Some(message)) => return Err(Refusal { message, position: at, produced }),
                };
            }
            if offset > produced {
                return Err(too_far(at, produced, offset));
            }
            let length = (length + MIN_MATCH).min(size - produced);
            copy_match(out, produced, offset, length);
            produced += length;
            if produced == size {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn copy16(data: &[u8], at: usize, out: &mut [u8], to: usize) {
    out[to..to + 16].copy_from_slice(&data[at..at + 16]);
}

/// Copies `length` bytes from `offset` bytes before `at`; the two ranges may overlap, byte by byte semantics.
fn copy_match(out: &mut [u8], at: usize, offset: usize, length: usize) {
    let from = at - offset;
    if offset >= 8 && at + length + 8 <= out.len() {
        let mut done = 0;
        while done < length {
            out.copy_within(from + done..from + done + 8, at + done);
            done += 8;
        }
        return;
    }
    if offset == 1 {
        let byte = out[from];
        out[at..at + length].fill(byte);
        return;
    }
    // Short offset: what is there already repeats, so each round can copy twice as much.
    let mut done = 0;
    while done < length {
        let step = (offset + done).min(length - done);
        out.copy_within(from..from + step, at + done);
        done += step;
    }
}

/// Writes at least 16 bytes that repeat the last `offset` (1 to 7) before `at`, without reading what it has written.
#[inline(always)]
fn repeat(out: &mut [u8], at: usize, offset: usize) {
    let window = &mut out[at - offset..at + 24];
    let bits = 8 * offset as u32;
    let mut pattern = u64::from_le_bytes(window[..8].try_into().unwrap_or_default()) & !(u64::MAX << bits);
    pattern |= pattern << bits;
    pattern |= pattern.checked_shl(2 * bits).unwrap_or(0);
    pattern |= pattern.checked_shl(4 * bits).unwrap_or(0);
    let step = REPEAT_STEP[offset & 7] as usize;
    for round in 0..3 {
        let to = offset + round * step;
        window[to..to + 8].copy_from_slice(&pattern.to_le_bytes());
    }
}

/// The largest multiple of an offset that fits into eight bytes.
const REPEAT_STEP: [u8; 8] = [0, 8, 8, 6, 8, 5, 6, 7];

#[cold]
fn too_far(position: usize, produced: usize, offset: usize) -> Refusal {
    let message = format!("match reaches {:#x} bytes behind the start of the output", offset - produced);
    Refusal { message, position, produced }
}

#[cold]
fn ended(data: &[u8], produced: usize, size: usize) -> Refusal {
    Refusal {
        message: format!("the compressed data ends after {produced:#x} of {size:#x} bytes"),
        position: data.len(),
        produced,
    }
}

/// Stored length (before adding 3) behind a short one of 7. `Err(None)`: the input ended.
fn long_length(data: &[u8], at: &mut usize, nibble_at: &mut Option<usize>) -> Result<usize, Option<String>> {
    let nibble = match nibble_at.take() {
        None => {
            let byte = *data.get(*at).ok_or(None)?;
            *nibble_at = Some(*at);
            *at += 1;
            byte & 15
        }
        Some(place) => data[place] >> 4,
    };
    if nibble < 15 {
        return Ok(nibble as usize + LONG);
    }
    let byte = *data.get(*at).ok_or(None)?;
    *at += 1;
    if byte < 255 {
        return Ok(byte as usize + 15 + LONG);
    }
    let pair = data.get(*at..*at + 2).ok_or(None)?;
    *at += 2;
    let mut length = u16::from_le_bytes([pair[0], pair[1]]) as usize;
    if length == 0 {
        let word = data.get(*at..*at + 4).ok_or(None)?;
        *at += 4;
        length = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize;
    }
    if length < 15 + LONG {
        return Err(Some(format!("match length {length:#x} in its long form")));
    }
    Ok(length)
}

const NONE: u32 = u32::MAX;
const HASH_BITS: u32 = 13;

/// Finds the longest of the most recent occurrences of four bytes. Chains by hash, links of other bytes are passed over
/// without counting, so that the choice is that of the fallback.
struct Finder<'a> {
    data: &'a [u8],
    newest: Vec<u32>,
    older: Vec<u32>,
}

impl<'a> Finder<'a> {
    fn new(data: &'a [u8]) -> Self {
        Finder { data, newest: vec![NONE; 1 << HASH_BITS], older: vec![NONE; data.len()] }
    }

    fn key(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.data[at], self.data[at + 1], self.data[at + 2], self.data[at + 3]])
    }

    fn slot(key: u32) -> usize {
        (key.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
    }

    fn insert(&mut self, at: usize) {
        if at + SOUGHT <= self.data.len() {
            let slot = Self::slot(self.key(at));
            self.older[at] = self.newest[slot];
            self.newest[slot] = at as u32;
        }
    }

    fn longest(&self, at: usize) -> (usize, usize) {
        if at + SOUGHT > self.data.len() {
            return (0, 0);
        }
        let key = self.key(at);
        let mut candidate = self.newest[Self::slot(key)];
        let (mut best, mut offset, mut tries) = (0, 0, CHAIN_DEPTH);
        while candidate != NONE && tries > 0 && at - candidate as usize <= WINDOW {
            let start = candidate as usize;
            if self.key(start) == key {
                let length = SOUGHT + common(&self.data[start + SOUGHT..], &self.data[at + SOUGHT..]);
                if length > best {
                    (best, offset) = (length, at - start);
                    if length >= GOOD_MATCH {
                        break;
                    }
                }
                tries -= 1;
            }
            candidate = self.older[start];
        }
        (best, offset)
    }
}

/// How many bytes the two slices have in common at their beginning.
fn common(a: &[u8], b: &[u8]) -> usize {
    let mut length = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if x != y {
            break;
        }
        length += 8;
    }
    length + a[length..].iter().zip(&b[length..]).take_while(|(x, y)| x == y).count()
}

/// Compresses; a match is put off by one byte where a longer one begins there.
pub fn encode(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    let (mut flags_at, mut flags, mut count) = (0usize, 0u32, 0u32);
    let mut nibble_at = None;
    let mut finder = Finder::new(data);
    let mut at = 0;
    let (mut length, mut offset) = finder.longest(0);
    while at < data.len() {
        finder.insert(at);
        let following = if length > 0 && length < GOOD_MATCH { finder.longest(at + 1) } else { (0, 0) };
        if length > 0 && following.0 <= length {
            put_match(&mut out, offset, length, &mut nibble_at);
            flags = flags << 1 | 1;
            for inside in at + 1..at + length {
                finder.insert(inside);
            }
            at += length;
            (length, offset) = finder.longest(at);
        } else {
            out.push(data[at]);
            flags <<= 1;
            at += 1;
            (length, offset) = if length > 0 { following } else { finder.longest(at) };
        }
        count += 1;
        if count == 32 {
            out[flags_at..flags_at + 4].copy_from_slice(&flags.to_le_bytes());
            (flags_at, flags, count) = (out.len(), 0, 0);
            out.extend_from_slice(&[0; 4]);
        }
    }
    // Unused flags are ones: a decoder that meets one at the end of the input knows that it is done.
    let rest = 32 - count;
    let flags = ((flags as u64) << rest | ((1u64 << rest) - 1)) as u32;
    out[flags_at..flags_at + 4].copy_from_slice(&flags.to_le_bytes());
    out
}

fn put_match(out: &mut Vec<u8>, offset: usize, length: usize, nibble_at: &mut Option<usize>) {
    let stored = length - MIN_MATCH;
    let token = (offset - 1) << 3 | stored.min(LONG);
    out.extend_from_slice(&(token as u16).to_le_bytes());
    if stored < LONG {
        return;
    }
    let nibble = (stored - LONG).min(15) as u8;
    match nibble_at.take() {
        None => {
            *nibble_at = Some(out.len());
            out.push(nibble);
        }
        Some(place) => out[place] |= nibble << 4,
    }
    if nibble == 15 {
        let rest = stored - LONG - 15;
        if rest < 255 {
            out.push(rest as u8);
        } else {
            out.push(255);
            if stored < 1 << 16 {
                out.extend_from_slice(&(stored as u16).to_le_bytes());
            } else {
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(&(stored as u32).to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that repeat now and then, as memory does; the same for the same seed.
    fn sample(seed: u32, size: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut out: Vec<u8> = Vec::with_capacity(size);
        while out.len() < size {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let length = 1 + (state >> 8) as usize % 90;
            match state % 3 {
                0 => out.resize(out.len() + length, 0),
                1 if !out.is_empty() => {
                    let start = (state >> 16) as usize % out.len();
                    for at in start..start + length {
                        out.push(out[at]);
                    }
                }
                _ => out.extend(state.to_le_bytes()),
            }
        }
        out.truncate(size);
        out
    }

    fn decoded(data: &[u8], size: usize) -> Result<Vec<u8>, Refusal> {
        let mut out = vec![0; size];
        decode(data, &mut out).map(|()| out)
    }

    #[test]
    fn published_example() {
        // MS-XCA 3.1: 300 bytes of "abc".
        let packed = [0xFF, 0xFF, 0xFF, 0x1F, b'a', b'b', b'c', 0x17, 0, 0x0F, 0xFF, 0x26, 0x01];
        assert_eq!(decoded(&packed, 300).unwrap(), b"abc".repeat(100));
    }

    #[test]
    fn round_trips() {
        for seed in 0..200 {
            let data = sample(seed, 1 + seed as usize * 41);
            assert_eq!(decoded(&encode(&data), data.len()).unwrap(), data, "seed {seed}");
        }
    }

    #[test]
    fn a_shorter_output_is_a_prefix() {
        let data = sample(7, 4096);
        let packed = encode(&data);
        for size in [0, 1, 31, 32, 33, 4000, 4095] {
            assert_eq!(decoded(&packed, size).unwrap(), data[..size]);
        }
    }

    #[test]
    fn truncated_input_is_refused_and_says_where() {
        let data = sample(3, 4096);
        let packed = encode(&data);
        assert!(decoded(&packed, data.len()).is_ok());
        for size in 0..packed.len() - 1 {
            let refusal = decoded(&packed[..size], data.len()).unwrap_err();
            assert!(refusal.produced < data.len() && refusal.position <= size, "{size}: {refusal:?}");
        }
    }

    #[test]
    fn a_match_before_the_output_is_refused() {
        // One literal, then a match at offset 1 (sound) or 2 (before the output), length 3.
        let sound = [0xFF, 0xFF, 0xFF, 0x7F, b'x', 0x00, 0x00];
        assert_eq!(decoded(&sound, 4).unwrap(), b"xxxx");
        let behind = [0xFF, 0xFF, 0xFF, 0x7F, b'x', 0x08, 0x00];
        let refusal = decoded(&behind, 4).unwrap_err();
        assert_eq!(refusal.message, "match reaches 0x1 bytes behind the start of the output");
        assert_eq!(refusal.produced, 1);
    }

    #[test]
    fn any_bytes_end() {
        for seed in 0..500 {
            let data = sample(seed, 3 + seed as usize % 300);
            let _ = decoded(&data, 4096);
        }
    }
}
