//! Random weights, written directly as the blocks of a GGUF type.

/// How a tensor stores its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    F32,
    F16,
    Q4_0,
    Q8_0,
    Q4K,
    Q6K,
    Iq4Nl,
    Mxfp4,
}

impl Type {
    /// Its number in a GGUF file.
    pub fn id(self) -> u32 {
        match self {
            Type::F32 => 0,
            Type::F16 => 1,
            Type::Q4_0 => 2,
            Type::Q8_0 => 8,
            Type::Q4K => 12,
            Type::Q6K => 14,
            Type::Iq4Nl => 20,
            Type::Mxfp4 => 39,
        }
    }

    /// Weights and bytes of one block.
    fn block(self) -> (usize, usize) {
        match self {
            Type::F32 => (1, 4),
            Type::F16 => (1, 2),
            Type::Q4_0 | Type::Iq4Nl => (32, 18),
            Type::Q8_0 => (32, 34),
            Type::Q4K => (256, 144),
            Type::Q6K => (256, 210),
            Type::Mxfp4 => (32, 17),
        }
    }

    /// Size of a tensor whose rows have `shape[0]` weights.
    pub fn n_bytes(self, shape: &[usize]) -> usize {
        let (n_weights, n_bytes) = self.block();
        assert_eq!(shape[0] % n_weights, 0, "{self:?} row of {}", shape[0]);
        shape.iter().product::<usize>() / n_weights * n_bytes
    }

    /// `n_bytes` of weights with this mean and about this standard deviation.
    pub fn random(self, n_bytes: usize, mean: f32, std: f32, seed: u64) -> Vec<u8> {
        assert!(self == Type::F32 || mean == 0.0, "{self:?} mean {mean}");
        let mut bytes = random_bytes(n_bytes, seed);
        for block in bytes.chunks_exact_mut(self.block().1) {
            self.tame(block, mean, std);
        }
        bytes
    }

    /// Turns a block of random bytes into one whose weights have this mean and deviation.
    ///
    /// The quants stay as they are; the divisors are the standard deviation of random quants.
    fn tame(self, block: &mut [u8], mean: f32, std: f32) {
        match self {
            Type::F32 => {
                let unit = i32::from_le_bytes(block.try_into().unwrap()) as f32 / 2f32.powi(31);
                block.copy_from_slice(&(mean + unit * std * 3f32.sqrt()).to_le_bytes());
            }
            Type::F16 => {
                let unit = f32::from(i16::from_le_bytes(block.try_into().unwrap())) / 32768.0;
                block.copy_from_slice(&f16(unit * std * 3f32.sqrt()));
            }
            Type::Q4_0 => block[..2].copy_from_slice(&f16(std / 4.6)),
            Type::Iq4Nl => block[..2].copy_from_slice(&f16(std / 67.4)),
            Type::Q8_0 => block[..2].copy_from_slice(&f16(std / 73.9)),
            // weight = d * scale * quant - dmin * min, with quants of mean 7.5
            Type::Q4K => {
                block[..2].copy_from_slice(&f16(std / 258.0));
                block[2..4].copy_from_slice(&f16(7.5 * std / 258.0));
            }
            // Scales below 32 keep d a normal half.
            Type::Q6K => {
                for scale in &mut block[192..208] {
                    *scale = (*scale as i8 >> 2) as u8;
                }
                block[208..].copy_from_slice(&f16(std / 342.0));
            }
            // The exponent is one of the two powers of two around std / 5.85.
            Type::Mxfp4 => {
                let exponent = 128 + (std / 5.85).log2().floor() as i32;
                block[0] = exponent as u8 + (block[0] & 1);
            }
        }
    }
}

/// splitmix64: the same seed gives the same bytes on any machine.
fn random_bytes(n_bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(n_bytes + 8);
    while bytes.len() < n_bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(n_bytes);
    bytes
}

/// The nearest half; what is too small for a normal one becomes 0, good enough for random weights.
fn f16(x: f32) -> [u8; 2] {
    assert!(x.abs() < 65504.0, "{x} is no half");
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = x.abs().to_bits();
    if magnitude < 113 << 23 {
        return sign.to_le_bytes();
    }
    (sign | ((magnitude - (112 << 23) + (1 << 12)) >> 13) as u16).to_le_bytes()
}
