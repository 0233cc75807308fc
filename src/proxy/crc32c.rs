//! CRC-32C (Castagnoli), as RFC 4960 appendix B has it: bytes from their lowest bit.

const POLYNOMIAL: u32 = 0x82F6_3B78;

pub(super) struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32c {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                let is_odd = self.0 & 1 == 1;
                self.0 = (self.0 >> 1) ^ if is_odd { POLYNOMIAL } else { 0 };
            }
        }
    }

    pub(super) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_and_the_vectors_of_rfc_3720() {
        let of = |bytes: &[u8]| {
            let mut crc = Crc32c::default();
            crc.add(bytes);
            crc.value()
        };
        assert_eq!(of(b"123456789"), 0xE306_9283);
        assert_eq!(of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(of(&[0xFF; 32]), 0x62A8_AB43);
    }
}
