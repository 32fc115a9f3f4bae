//! `gristmill node doctor`: what is fit, what is not, and how to mend it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::doctor::{Report, Verdict, examine, gather};
use crate::settings::{FileSection, ServeArguments, Settings};

pub(super) async fn show(
    arguments: ServeArguments,
    file: FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let report = examine(&gather(Settings::resolve(arguments, file), data_dir).await);
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, &mut io::stdout().lock())?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn print(report: &Report, stdout: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        let (verdict, check) = (finding.verdict, finding.check.name());
        writeln!(stdout, "{verdict:<8} {check:<14} {}", finding.what)?;
        if !finding.remedy.is_empty() {
            writeln!(stdout, "{:<23} -> {}", "", finding.remedy)?;
        }
    }
    let unfit = report
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Unfit)
        .count();
    let text = match report.verdict {
        Verdict::Fit | Verdict::Note => "This machine is fit to serve.".to_owned(),
        Verdict::Unknown => {
            "Nothing was found that is in the way, but not everything could be told.".to_owned()
        }
        Verdict::Unfit if unfit == 1 => "1 thing is in the way.".to_owned(),
        Verdict::Unfit => format!("{unfit} things are in the way."),
    };
    writeln!(stdout, "{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Finding};

    #[test]
    fn a_line_for_each_finding_the_remedy_below_it_and_the_sum_at_the_end() {
        let finding = |check, verdict, what: &str, remedy: &str| Finding {
            check,
            verdict,
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        };
        let mut report = Report {
            fit: false,
            verdict: Verdict::Unfit,
            findings: vec![
                finding(Check::Driver, Verdict::Fit, "the driver is new", ""),
                finding(Check::Clock, Verdict::Unfit, "a day behind", "set it"),
            ],
        };
        let mut text = Vec::new();
        print(&report, &mut text).unwrap();
        let expected = "ok       driver         the driver is new\n\
                        UNFIT    clock          a day behind\n                        -> set it\n\
                        1 thing is in the way.\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["findings"][1],
            serde_json::json!({"check": "clock", "verdict": "unfit", "what": "a day behind", "remedy": "set it"})
        );
        report.verdict = Verdict::Unknown;
        assert_eq!(report.exit_code(), 2);
    }
}
