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
