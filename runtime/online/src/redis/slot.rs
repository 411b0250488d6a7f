//! In which of a cluster's slots a key lies.

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16384;

/// The slot of a key: of what stands in its first braces, or of all of it.
pub(super) fn of_key(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|&byte| byte == b'}')?;
        (close > 0).then_some(&rest[..close])
    });
    of(tag.unwrap_or(key))
}

/// The slot of what decides it: a whole key, or what stands in its braces.
pub(super) fn of(tag: &[u8]) -> u16 {
    of_bytes(tag.iter().copied())
}

/// The slot of what decides it, byte by byte: CRC-16/XMODEM modulo the number of slots, as the
/// specification of Redis Cluster has it.
pub(super) fn of_bytes(tag: impl Iterator<Item = u8>) -> u16 {
    let crc = tag.fold(0_u16, |crc, byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    });
    crc % SLOTS
}

const TABLE: [u16; 256] = {
    const POLYNOMIAL: u16 = 0x1021;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= POLYNOMIAL;
            }
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_the_specification_and_a_server_give() {
        // The specification's own test vector.
        assert_eq!(of(b"123456789"), 0x31c3 % SLOTS);
        // CLUSTER KEYSLOT foo.
        assert_eq!(of(b"foo"), 12182);
        assert_eq!(of(b""), 0);
        for key in [&b"foo"[..], b"{foo}bar", b"a{foo}{b}"] {
            assert_eq!(of_key(key), 12182);
        }
        // Nothing, or no end of it, stands in braces.
        for key in [&b"a{}b"[..], b"a{b", b"{"] {
            assert_eq!(of_key(key), of(key));
        }
    }
}
