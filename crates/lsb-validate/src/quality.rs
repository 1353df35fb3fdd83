//! [`QualityValidator`], the default judge of weights: error figures per tensor, per layer and for the model.

use crate::metric::WeightError;
use crate::validator::{Domain, Measurement, Observation, Validator};
use lsb_quant::Distortion;
use lsb_stream::{CompressReport, TensorReport};
use serde::Serialize;

/// Error figures of everything that was shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightReport {
    /// All weights, each stored tensor counted once. A few exact tensors with large values (norms) can
    /// hold most of the signal, so this says little about the rest.
    pub model: WeightError,
    /// The tensors that were not restored exactly, together; `None` where all were.
    pub lossy: Option<WeightError>,
    /// Layers, in the order they appeared.
    pub layers: Vec<LayerFigures>,
    /// Tensors, in the order they appeared.
    pub tensors: Vec<TensorFigures>,
}

impl WeightReport {
    /// The figures that targets are judged by: of the weights that are not exact, or of all where all are.
    /// Unlike those of all weights they obey the bounds of [`crate::feasibility`].
    pub fn judged(&self) -> &WeightError {
        self.lossy.as_ref().unwrap_or(&self.model)
    }
}

/// Figures of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerFigures {
    /// Name of the layer.
    pub layer: String,
    /// Its figures.
    #[serde(flatten)]
    pub error: WeightError,
}

/// Figures of one tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorFigures {
    /// Name of the tensor.
    pub name: String,
    /// Name of its layer.
    pub layer: String,
    /// Id of its codec.
    pub codec: String,
    /// The tensor it is stored with; such a tensor has figures but counts towards no total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// Its figures.
    #[serde(flatten)]
    pub error: WeightError,
}

/// Sums of one tensor while it is being shown.
#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    layer: String,
    codec: String,
    same_as: Option<String>,
    sums: Distortion,
}

/// The default [`Validator`]: relative error, SNR and correlation of weights.
#[derive(Clone, Debug, Default)]
pub struct QualityValidator {
    tensors: Vec<Tensor>,
}

impl QualityValidator {
    /// A validator that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the sums a monitored compression already made, so that its report can be judged without
    /// reading the weights again. Exact tensors that hold NaN or infinity have no figures.
    pub fn of_compression(report: &CompressReport) -> Self {
        let has_figures = |t: &&TensorReport| !t.exact || t.distortion.is_some_and(|d| d.sum_ee.is_finite());
        let tensors = report.tensors.iter().filter(has_figures).filter_map(|t| {
            Some(Tensor {
                name: t.name.clone(),
                layer: t.layer.clone(),
                codec: t.codec.clone(),
                same_as: t.same_as.clone(),
                sums: t.distortion?,
            })
        });
        QualityValidator { tensors: tensors.collect() }
    }

    /// Figures of what was shown so far.
    pub fn report(&self) -> WeightReport {
        let counted = || self.tensors.iter().filter(|t| t.same_as.is_none());
        let figures = |keep: &dyn Fn(&Tensor) -> bool| {
            WeightError::over(counted().filter(|t| keep(t)).map(|t| &t.sums))
        };
        let mut layers: Vec<&str> = Vec::new();
        for tensor in counted() {
            if !layers.contains(&tensor.layer.as_str()) {
                layers.push(&tensor.layer);
            }
        }
        let is_lossy = |t: &Tensor| !WeightError::from(&t.sums).exact;
        WeightReport {
            model: figures(&|_| true),
            lossy: counted().any(is_lossy).then(|| figures(&is_lossy)),
            layers: layers
                .into_iter()
                .map(|layer| LayerFigures { layer: layer.to_owned(), error: figures(&|t| t.layer == layer) })
                .collect(),
            tensors: self
                .tensors
                .iter()
                .map(|t| TensorFigures {
                    name: t.name.clone(),
                    layer: t.layer.clone(),
                    codec: t.codec.clone(),
                    same_as: t.same_as.clone(),
                    error: WeightError::from(&t.sums),
                })
                .collect(),
        }
    }
}

impl Validator for QualityValidator {
    fn name(&self) -> &str {
        "weights"
    }

    fn needs(&self) -> Domain {
        Domain::Weights
    }

    fn observe(&mut self, observation: &Observation<'_>) {
        let Observation::Weights(run) = observation;
        match self.tensors.last_mut() {
            Some(last) if last.name == run.tensor.name => last.sums.merge(run.distortion),
            _ => self.tensors.push(Tensor {
                name: run.tensor.name.clone(),
                layer: run.tensor.layer.clone(),
                codec: run.tensor.codec_id().to_owned(),
                same_as: run.tensor.same_as.clone(),
                sums: *run.distortion,
            }),
        }
    }

    /// `weight_snr_db`, `relative_error_percent`, `correlation` (missing where undefined) and `relative_mse`
    /// of the weights that are not exact, `all_weights_snr_db` of the model, and the worst tensor's
    /// `max_abs_error`, `worst_weight_snr_db` and `worst_relative_error_percent` with its name.
    fn finish(&mut self) -> Vec<Measurement> {
        let report = self.report();
        let (model, judged) = (&report.model, report.judged());
        let all = format!("all {} weights", model.weights);
        let covers = match &report.lossy {
            Some(lossy) => format!("the {} weights of tensors that are not exact", lossy.weights),
            None => format!("{all}, every one exact"),
        };
        let mut out = vec![
            Measurement::new("weight_snr_db", judged.weight_snr_db, "dB", covers.clone()),
            Measurement::new("all_weights_snr_db", model.weight_snr_db, "dB", all),
            Measurement::new(
                "relative_error_percent",
                judged.relative_error_percent,
                "%",
                format!("mean error over the range of its tensor, {covers}"),
            ),
        ];
        if let Some(correlation) = judged.correlation {
            out.push(Measurement::new("correlation", correlation, "", covers.clone()));
        }
        out.push(Measurement::new("relative_mse", judged.relative_mse, "", covers));
        let worst = |key: &dyn Fn(&WeightError) -> f64| {
            let by = |a: &&TensorFigures, b: &&TensorFigures| key(&a.error).total_cmp(&key(&b.error));
            // On a tie the first tensor is named.
            report.tensors.iter().rev().max_by(by)
        };
        if let Some(t) = worst(&|e| e.max_abs_error) {
            out.push(Measurement::new(
                "max_abs_error",
                t.error.max_abs_error,
                "",
                lsb_format::escape(&t.name),
            ));
        }
        if let Some(t) = worst(&|e| -e.weight_snr_db) {
            let name = lsb_format::escape(&t.name);
            out.push(Measurement::new("worst_weight_snr_db", t.error.weight_snr_db, "dB", name));
        }
        if let Some(t) = worst(&|e| e.relative_error_percent) {
            let (value, name) = (t.error.relative_error_percent, lsb_format::escape(&t.name));
            out.push(Measurement::new("worst_relative_error_percent", value, "%", name));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_judged_from_its_report() {
        let sums = |w: &[f32], q: &[f32]| serde_json::to_value(Distortion::measure(w, q)).unwrap();
        let tensor = |name: &str, layer: &str, exact: bool, distortion: serde_json::Value| {
            serde_json::json!({
                "name": name, "layer": layer, "shape": [2], "dtype": "F32", "codec": if exact { "raw" } else { "rtn" },
                "parameters": {}, "weights": 2, "source_bytes": 8, "bytes": 8, "exact": exact,
                "distortion": distortion,
            })
        };
        let report: CompressReport = serde_json::from_value(serde_json::json!({
            "package": "p", "codec": "rtn", "parameters": {}, "source_bytes": 32, "package_bytes": 16, "weights": 8,
            "seconds": 1.0, "peak_rss_bytes": 0, "bytes_read": 0, "resumed_tensors": 0, "already_done": false,
            "budget_peak_bytes": 0, "budget_bytes": 0, "layers": [], "warnings": [],
            "tensors": [
                tensor("w", "layer 0", false, sums(&[1.0, 2.0], &[1.0, 1.5])),
                tensor("norm", "layer 0", true, sums(&[4.0, 4.0], &[4.0, 4.0])),
                tensor("head", "after layers", false, sums(&[0.0, 4.0], &[1.0, 4.0])),
                tensor("ids", "after layers", true, serde_json::Value::Null),
            ],
        }))
        .unwrap();
        let mut judge = QualityValidator::of_compression(&report);
        let figures = judge.report();
        let names: Vec<_> = figures.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["w", "norm", "head"]);
        let layers: Vec<_> = figures.layers.iter().map(|l| (l.layer.as_str(), l.error.weights)).collect();
        assert_eq!(layers, [("layer 0", 4), ("after layers", 2)]);
        // Signal 5 + 32 + 16, noise 0.25 + 1; without the exact tensor 21 over 1.25.
        assert!((figures.model.weight_snr_db - 10.0 * (53.0f64 / 1.25).log10()).abs() < 1e-12);
        assert!((figures.judged().weight_snr_db - 10.0 * (21.0f64 / 1.25).log10()).abs() < 1e-12);
        // 25 %, 0 % and 12.5 % of the ranges.
        assert!((figures.model.relative_error_percent - 12.5).abs() < 1e-12);
        assert_eq!(figures.judged().weights, 4);
        let measured = judge.finish();
        let find = |name: &str| measured.iter().find(|m| m.name == name).unwrap();
        assert_eq!(find("worst_weight_snr_db").detail, "head");
        assert_eq!(find("weight_snr_db").value, figures.judged().weight_snr_db);
        assert_eq!(find("all_weights_snr_db").value, figures.model.weight_snr_db);
        let json = serde_json::to_value(judge.report()).unwrap();
        assert_eq!(json["tensors"][1]["exact"], true);
        assert!(json["tensors"][1]["weight_snr_db"].is_null());
    }
}
