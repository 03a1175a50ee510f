//! Key tables and object tables of HyperVStorage in bulk: a saved state of 1 TiB has a million entries of one kind.
//!
//! Only entries that are as they should be are taken here; the places of all others are returned, and Python looks at
//! them one by one. Layouts: `docs/spec/saved-state-format.md`, 2.5 and 2.7.

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut number = 0;
    while number < 256 {
        let mut value = number as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 != 0 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[number] = value;
        number += 1;
    }
    table
}

static CRC: [u32; 256] = crc_table();

fn crc32(state: u32, data: &[u8]) -> u32 {
    data.iter().fold(state, |state, byte| CRC[((state ^ u32::from(*byte)) & 255) as usize] ^ (state >> 8))
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from(u32_at(data, at)) | u64::from(u32_at(data, at + 4)) << 32
}

const ENTRY: usize = 21; // bytes before the name
const POINTER: usize = 12; // size and offset of a value outside of the table
const ARRAY: u8 = 7;
const MAX_DIGITS: usize = 15;

/// Keys of one parent whose names are a prefix and a number, and whose values are arrays: in the table, or outside of it.
#[derive(Default)]
pub struct Numbered {
    pub parent: u64,
    pub prefix: Vec<u8>,
    pub numbers: Vec<u64>,
    pub entries: Vec<u64>,
    pub offsets: Vec<u64>,
    pub sizes: Vec<u32>,
    pub sequences: Vec<u32>,
    pub external: Vec<u8>,
}

struct Value {
    offset: u64, // in the file, or in the entry
    size: u32,
    external: bool,
}

/// What a key table holds: numbered keys by parent and prefix, the places of all other entries, and where its entries end.
pub struct KeyTable {
    pub groups: Vec<Numbered>,
    pub others: Vec<u32>,
    pub end: usize,
}

/// The entries of a table from `start` on; `base` is the offset of the table in its file.
pub fn scan_keys(data: &[u8], start: usize, base: u64) -> KeyTable {
    let mut found = KeyTable { groups: Vec::new(), others: Vec::new(), end: start };
    let mut at = start;
    while at + ENTRY < data.len() {
        let size = u32_at(data, at + 2) as usize;
        if size < ENTRY || size > data.len() - at {
            found.others.push(at as u32); // Python reports it, and the rest of the table is lost
            break;
        }
        match numbered(&data[at..at + size]) {
            Some((prefix, number, value)) => {
                let parent =
                    u64::from(u16::from_le_bytes([data[at + 6], data[at + 7]])) << 32 | u64::from(u32_at(data, at + 8));
                let group = group_of(&mut found.groups, parent, prefix);
                group.numbers.push(number);
                group.entries.push(base + at as u64);
                group.sizes.push(value.size);
                group.offsets.push(if value.external { value.offset } else { base + at as u64 + value.offset });
                group.external.push(u8::from(value.external));
                group.sequences.push(u32_at(data, at + 16));
            }
            None => found.others.push(at as u32),
        }
        at += size;
    }
    found.end = at;
    found
}

fn group_of<'a>(groups: &'a mut Vec<Numbered>, parent: u64, prefix: &[u8]) -> &'a mut Numbered {
    let place = groups.iter().position(|group| group.parent == parent && group.prefix == prefix).unwrap_or_else(|| {
        groups.push(Numbered { parent, prefix: prefix.to_vec(), ..Numbered::default() });
        groups.len() - 1
    });
    &mut groups[place]
}

/// Prefix and number of the name of a sound array, and its value; the prefix ends with no digit.
fn numbered(entry: &[u8]) -> Option<(&[u8], u64, Value)> {
    let name_size = usize::from(entry[20]);
    let place = ENTRY + name_size;
    if entry[0] != ARRAY || name_size < 2 || place + 4 > entry.len() || entry[place - 1] != 0 {
        return None;
    }
    let (size, external) = (u32_at(entry, place), entry[1] & 1 != 0);
    let end = if external { place + POINTER } else { place + 4 + size as usize };
    if end > entry.len() {
        return None;
    }
    let offset = if external { u64_at(entry, place + 4) } else { place as u64 + 4 };
    let name = &entry[ENTRY..ENTRY + name_size - 1];
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (prefix, number) = name.split_at(name.len() - digits);
    if digits == 0
        || digits > MAX_DIGITS
        || prefix.is_empty()
        || !prefix.is_ascii()
        || (digits > 1 && number[0] == b'0')
    {
        return None;
    }
    let state = crc32(crc32(u32::MAX, &entry[..12]), &[0; 4]);
    if !crc32(state, &entry[16..end]) != u32_at(entry, 12) {
        return None;
    }
    let number = number.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((prefix, number, Value { offset, size, external }))
}

pub const OBJECT: usize = 18;
const FILE_OBJECT: u8 = 3;

/// The sound file objects of an object table (offset, size), and the places of all other entries.
pub struct ObjectTable {
    pub offsets: Vec<u64>,
    pub sizes: Vec<u32>,
    pub others: Vec<u32>,
}

pub fn scan_objects(data: &[u8]) -> ObjectTable {
    let mut found = ObjectTable { offsets: Vec::new(), sizes: Vec::new(), others: Vec::new() };
    for (number, entry) in data.chunks_exact(OBJECT).enumerate() {
        let state = crc32(crc32(u32::MAX, &entry[..1]), &[0; 4]);
        if entry[0] == FILE_OBJECT && !crc32(state, &entry[5..]) == u32_at(entry, 1) {
            found.offsets.push(u64_at(entry, 5));
            found.sizes.push(u32_at(entry, 13));
        } else {
            found.others.push((number * OBJECT) as u32);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8], kind: u8, flags: u8) -> Vec<u8> {
        let mut raw = vec![kind, flags];
        raw.extend(((ENTRY + name.len() + POINTER + 3) as u32).to_le_bytes());
        raw.extend([1, 0, 0x0A, 0, 0, 0]);
        raw.extend([0; 4]);
        raw.extend([9, 0, 0, 0, name.len() as u8]);
        raw.extend(name);
        raw.extend(0x1000u32.to_le_bytes());
        raw.extend(0x5000u64.to_le_bytes());
        let crc = !crc32(u32::MAX, &raw);
        raw[12..16].copy_from_slice(&crc.to_le_bytes());
        raw.extend([0xEE; 3]); // slack
        raw
    }

    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(!crc32(u32::MAX, b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn sound_entries_are_grouped_and_others_are_left_to_python() {
        let names: [&[u8]; 7] =
            [b"RamBlock0\0", b"RamBlock12\0", b"RamBlock01\0", b"7\0", b"type\0", b"Other3\0", b"X1"];
        let mut data = vec![0; 10];
        let mut places = Vec::new();
        for name in names {
            places.push(data.len() as u32);
            data.extend(entry(name, ARRAY, 1));
        }
        let broken = data.len();
        let mut bad = entry(b"RamBlock5\0", ARRAY, 1);
        bad[30] ^= 1;
        data.extend(bad);
        let found = scan_keys(&data, 10, 0x7000);
        assert_eq!(found.end, data.len());
        assert_eq!(found.others, [places[2], places[3], places[4], places[6], broken as u32]);
        assert_eq!(found.groups.len(), 2);
        let blocks = &found.groups[0];
        assert_eq!((blocks.parent, blocks.prefix.as_slice()), (1 << 32 | 10, b"RamBlock".as_slice()));
        assert_eq!((blocks.numbers.as_slice(), blocks.entries[0]), ([0, 12].as_slice(), 0x700A));
        assert_eq!((blocks.sizes[1], blocks.offsets[1], blocks.sequences[1]), (0x1000, 0x5000, 9));
        assert_eq!(blocks.external, [1, 1]);
    }

    #[test]
    fn values_in_the_table() {
        let mut raw = entry(b"RamBlock3\0", ARRAY, 0);
        raw[31..35].copy_from_slice(&5u32.to_le_bytes());
        raw[12..16].copy_from_slice(&[0; 4]);
        let crc = !crc32(u32::MAX, &raw[..40]);
        raw[12..16].copy_from_slice(&crc.to_le_bytes());
        let found = scan_keys(&raw, 0, 0x100);
        assert_eq!((found.groups[0].external[0], found.groups[0].offsets[0], found.groups[0].sizes[0]), (0, 0x123, 5));
        raw[31..35].copy_from_slice(&500u32.to_le_bytes());
        assert_eq!(scan_keys(&raw, 0, 0x100).others, [0]);
    }

    #[test]
    fn a_wrong_size_ends_the_table() {
        let mut data = vec![0; 10];
        data.extend(entry(b"RamBlock0\0", ARRAY, 1));
        let at = data.len();
        data.extend([7; 40]);
        let found = scan_keys(&data, 10, 0);
        assert_eq!((found.others.as_slice(), found.end), ([at as u32].as_slice(), at));
    }
}
