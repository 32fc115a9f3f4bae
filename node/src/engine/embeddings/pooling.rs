//! How the vectors of tokens become the vector of a text, as sentence-transformers' configuration says.

use candle_core::{DType, Result, Tensor};
use serde::Deserialize;

use crate::engine::model_files::{LoadError, ModelFiles};

/// Keeps a vector of zeros from being divided by its length (`eps` of PyTorch's `normalize`).
const LENGTH_MIN: f64 = 1e-12;

/// Which tokens' vectors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    /// The mean of all.
    Mean,
    /// The first one's.
    First,
}

/// From the vectors of tokens to that of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pooling: Pooling,
    normalized: bool,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Head {
    /// Reads `modules.json` and what it names; without it, vectors are means of length one.
    pub(super) fn from_files(files: &ModelFiles) -> std::result::Result<Self, LoadError> {
        let mut head = Self {
            pooling: Pooling::Mean,
            normalized: true,
        };
        let Some(modules) = files.json::<Vec<Module>>("modules.json")? else {
            return Ok(head);
        };
        head.normalized = false;
        for module in modules {
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" if module.path.is_empty() => {}
                "Pooling" => {
                    head.pooling = Pooling::from_files(files, &format!("{}/config.json", module.path))?;
                }
                "Normalize" => head.normalized = true,
                other => {
                    return Err(files.unsupported(format!("it has a {other} module in {:?}", module.path)));
                }
            }
        }
        Ok(head)
    }

    /// `[inputs, tokens, size]` and the mask of real tokens `[inputs, tokens]` to `[inputs, size]`.
    pub(super) fn forward(self, states: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let pooled = match self.pooling {
            Pooling::First => states.narrow(1, 0, 1)?.squeeze(1)?,
            Pooling::Mean => {
                let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
                states
                    .broadcast_mul(&mask)?
                    .sum(1)?
                    .broadcast_div(&mask.sum(1)?)?
            }
        };
        if !self.normalized {
            return Ok(pooled);
        }
        let length = pooled.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(LENGTH_MIN)?;
        pooled.broadcast_div(&length)
    }
}

impl Pooling {
    fn from_files(files: &ModelFiles, file: &str) -> std::result::Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Document {
            pooling_mode: Option<String>,
            #[serde(default)]
            pooling_mode_cls_token: bool,
            #[serde(default)]
            pooling_mode_mean_tokens: bool,
            #[serde(default)]
            pooling_mode_max_tokens: bool,
            #[serde(default)]
            pooling_mode_mean_sqrt_len_tokens: bool,
            #[serde(default)]
            pooling_mode_weightedmean_tokens: bool,
            #[serde(default)]
            pooling_mode_lasttoken: bool,
        }
        let document: Document = files.require_json(file)?;
        let others = document.pooling_mode_max_tokens
            || document.pooling_mode_mean_sqrt_len_tokens
            || document.pooling_mode_weightedmean_tokens
            || document.pooling_mode_lasttoken;
        let flags = (
            document.pooling_mode_mean_tokens,
            document.pooling_mode_cls_token,
            others,
        );
        match (document.pooling_mode.as_deref(), flags) {
            (Some("mean"), _) | (None, (true, false, false)) => Ok(Self::Mean),
            (Some("cls"), _) | (None, (false, true, false)) => Ok(Self::First),
            _ => Err(files.unsupported(format!("{file} asks for a pooling other than 'mean' or 'cls'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn head(parts: &[(&'static str, &'static str)]) -> std::result::Result<Head, LoadError> {
        let parts = parts.iter().map(|(file, text)| (*file, text.as_bytes()));
        Head::from_files(&ModelFiles::in_memory("m", parts))
    }

    const MODULES: &str = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
                              {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;

    #[test]
    fn the_configuration_is_followed() {
        let pooling = |text| head(&[("modules.json", MODULES), ("1_Pooling/config.json", text)]);
        let mean = Head {
            pooling: Pooling::Mean,
            normalized: false,
        };
        assert_eq!(pooling(r#"{"pooling_mode_mean_tokens": true}"#).unwrap(), mean);
        assert_eq!(pooling(r#"{"pooling_mode": "mean"}"#).unwrap(), mean);
        assert_eq!(
            pooling(r#"{"pooling_mode_cls_token": true}"#).unwrap().pooling,
            Pooling::First
        );
        assert_eq!(
            head(&[]).unwrap(),
            Head {
                pooling: Pooling::Mean,
                normalized: true
            }
        );
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let pooling = |text| head(&[("modules.json", MODULES), ("1_Pooling/config.json", text)]);
        for text in [
            "{}",
            r#"{"pooling_mode_max_tokens": true}"#,
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#,
            r#"{"pooling_mode": "lasttoken"}"#,
        ] {
            assert!(
                matches!(pooling(text), Err(LoadError::Unsupported { .. })),
                "{text}"
            );
        }
        assert!(matches!(pooling("{"), Err(LoadError::Damaged { .. })));
        assert!(matches!(
            head(&[("modules.json", MODULES)]),
            Err(LoadError::MissingFile { .. })
        ));
        let dense = r#"[{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#;
        assert!(matches!(
            head(&[("modules.json", dense)]),
            Err(LoadError::Unsupported { .. })
        ));
    }

    #[test]
    fn padding_does_not_count() {
        let states = Tensor::new(&[[[3f32, 0.0], [0.0, 4.0], [9.0, 9.0]]], &Device::Cpu).unwrap();
        let mask = Tensor::new(&[[1u32, 1, 0]], &Device::Cpu).unwrap();
        let pool = |head: Head| head.forward(&states, &mask).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(
            pool(Head {
                pooling: Pooling::Mean,
                normalized: false
            }),
            [[1.5, 2.0]]
        );
        assert_eq!(
            pool(Head {
                pooling: Pooling::Mean,
                normalized: true
            }),
            [[0.6, 0.8]]
        );
        assert_eq!(
            pool(Head {
                pooling: Pooling::First,
                normalized: false
            }),
            [[3.0, 0.0]]
        );
    }
}
