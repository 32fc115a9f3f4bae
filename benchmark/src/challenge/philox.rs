//! Philox4x64-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as
//! 1, 2, 3" (SC 2011). Any block can be made without those before it. numpy's `Philox` is the same, except that it
//! counts up before its first block.

const MULTIPLIERS: [u64; 2] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157];
const WEYL: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];
const ROUNDS: usize = 10;

/// Bytes of one block.
pub const BLOCK_BYTES: usize = 32;

/// The key of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    /// A key of two words.
    #[must_use]
    pub const fn new(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// A key from the first 16 bytes of a digest, little-endian.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self([word(0), word(8)])
    }

    /// The block of four words at `counter`.
    #[inline]
    #[must_use]
    pub fn block(self, counter: [u64; 4]) -> [u64; 4] {
        let mut key = self.0;
        let mut block = counter;
        for round in 0..ROUNDS {
            if round > 0 {
                key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
            }
            let (low_0, high_0) = wide_product(MULTIPLIERS[0], block[0]);
            let (low_1, high_1) = wide_product(MULTIPLIERS[1], block[2]);
            block = [
                high_1 ^ block[1] ^ key[0],
                low_1,
                high_0 ^ block[3] ^ key[1],
                low_0,
            ];
        }
        block
    }

    /// The block at `counter` as bytes: each word little-endian.
    #[inline]
    #[must_use]
    pub fn block_bytes(self, counter: [u64; 4]) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        for (part, word) in bytes.chunks_exact_mut(8).zip(self.block(counter)) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// The low and the high half of a product.
#[allow(clippy::cast_possible_truncation, reason = "each half is taken on purpose")]
#[inline]
const fn wide_product(left: u64, right: u64) -> (u64, u64) {
    let product = left as u128 * right as u128;
    (product as u64, (product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123 (`tests/kat_vectors`, philox4x64 with 10 rounds).
    #[test]
    fn the_known_answers_of_the_authors() {
        let ones = u64::MAX;
        assert_eq!(
            Key::new([0; 2]).block([0; 4]),
            [
                0x1655_4d9e_ca36_314c,
                0xdb20_fe9d_672d_0fdc,
                0xd7e7_72ce_e186_176b,
                0x7e68_b68a_ec7b_a23b
            ]
        );
        assert_eq!(
            Key::new([ones; 2]).block([ones; 4]),
            [
                0x87b0_92c3_013f_e90b,
                0x438c_3c67_be8d_0224,
                0x9cc7_d7c6_9cd7_77b6,
                0xa09c_aebf_594f_0ba0
            ]
        );
        let pi = [
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
        ];
        assert_eq!(
            Key::new([0x4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6c]).block(pi),
            [
                0xa528_f454_03e6_1d95,
                0x38c7_2dbd_566e_9788,
                0xa5a1_610e_72fd_18b5,
                0x57bd_43b5_e52b_7fe6
            ]
        );
    }

    /// `numpy.random.Philox(key=[3, 5], counter=[6, 11, 1, 0]).random_raw(8)`, numpy 2.4.6.
    #[test]
    fn numpy_counts_up_before_its_first_block() {
        let key = Key::new([3, 5]);
        assert_eq!([key.block([7, 11, 1, 0]), key.block([8, 11, 1, 0])], NUMPY);
    }

    const NUMPY: [[u64; 4]; 2] = [
        [
            0x1aeb_daa1_ba68_de88,
            0xc4d0_1b15_ea5d_44b2,
            0x98de_56ab_1053_a01b,
            0xcca9_4c14_9f78_c5ba,
        ],
        [
            0xd3aa_c775_6156_cdd0,
            0x2d90_cd91_98e5_1604,
            0xb407_4831_218f_60bc,
            0x6cfe_c0da_d76c_b31a,
        ],
    ];

    #[test]
    fn keys_and_bytes_are_little_endian() {
        let mut digest = [0; 32];
        digest[0] = 3;
        digest[8] = 5;
        digest[16] = 99;
        let key = Key::from_digest(&digest);
        assert_eq!(key, Key::new([3, 5]));
        let words = key.block([1, 2, 3, 4]);
        assert_eq!(key.block_bytes([1, 2, 3, 4])[8..16], words[1].to_le_bytes());
    }
}
