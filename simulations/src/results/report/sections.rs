//! The parts of the page around its plots.

use std::fmt::Write;

use super::figures::{main_parameter, sentence, varied_label};
use super::markup::{Text, with_unit, words};
use super::number;
use crate::results::statistics::Sample;
use crate::results::summary::{Summary, Variant};
use crate::results::table::number as parsed;
use crate::results::{Experiment, Manifest, unit_of};

/// The most metrics that the first table has room for.
const MAX_HEADLINE: usize = 5;
/// The most rows of a table; the files have all.
const MAX_ROWS: usize = 400;
/// The most commands that are shown.
const MAX_COMMANDS: usize = 12;

/// What spoils the answer: broken rules, and runs that are not there.
pub(super) fn warnings(page: &mut String, experiment: &Experiment, summary: &Summary) {
    let breaches: usize = summary.variants.iter().map(|variant| variant.breaches).sum();
    if breaches > 0 {
        page.push_str("<section class=\"alarm\">\n<h2>Rules were broken</h2>\n<ul>\n");
        let all = experiment
            .runs
            .iter()
            .flat_map(|run| run.manifest.breaches.iter().map(move |breach| (run, breach)));
        for (run, breach) in all.take(MAX_ROWS) {
            let _ = writeln!(
                page,
                "<li><strong>{}</strong> at node {}, {} s, event {}, seed {}: {}</li>",
                Text(&breach.rule),
                breach.node,
                number::plain(breach.at_us as f64 / 1e6),
                breach.event,
                run.manifest.seed,
                Text(&breach.message)
            );
        }
        page.push_str("</ul>\n<p>A run ends at its first breach, so what follows is not the whole story.</p>\n</section>\n");
    }
    if !experiment.missing.is_empty() {
        page.push_str("<section class=\"alarm\">\n<h2>Runs are missing</h2>\n<ul>\n");
        for missing in &experiment.missing {
            let _ = writeln!(page, "<li>{}</li>", Text(missing));
        }
        page.push_str("</ul>\n</section>\n");
    }
}

/// What was varied, and what the runs share.
pub(super) fn varied(page: &mut String, experiment: &Experiment, summary: &Summary) {
    page.push_str("<h2>What was varied</h2>\n<dl>\n");
    for (name, values) in &summary.varied {
        let _ = writeln!(
            page,
            "<dt>{}</dt><dd>{}</dd>",
            Text(name),
            Text(&values.join(", "))
        );
    }
    if summary.varied.is_empty() {
        page.push_str("<dt>Parameters</dt><dd>none</dd>\n");
    }
    let seeds: Vec<u64> = summary
        .variants
        .iter()
        .flat_map(|variant| variant.seeds.clone())
        .collect();
    let _ = writeln!(page, "<dt>Seeds</dt><dd>{}</dd>", ranges(seeds));
    let of = |name: fn(&Manifest) -> f64| {
        let values: Vec<f64> = experiment.runs.iter().map(|run| name(&run.manifest)).collect();
        Sample::of(&values).map_or("0".into(), |sample| span(sample.smallest, sample.largest))
    };
    let _ = writeln!(
        page,
        "<dt>Runs</dt><dd>{}, each {} nodes, {} events, {} s of virtual time</dd>\n</dl>",
        experiment.runs.len(),
        of(|manifest| manifest.nodes as f64),
        of(|manifest| manifest.events as f64),
        of(|manifest| manifest.virtual_s)
    );
}

fn span(low: f64, high: f64) -> String {
    if low == high {
        return number::plain(low);
    }
    format!("{} to {}", number::plain(low), number::plain(high))
}

/// Whole numbers in short: 1 to 4, 7.
fn ranges(mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    numbers.dedup();
    let mut groups: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match groups.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => groups.push((number, number)),
        }
    }
    let shown = groups.iter().take(40).map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first} to {last}"),
    });
    let rest = if groups.len() > 40 { " and more" } else { "" };
    format!("{}{rest}", shown.collect::<Vec<_>>().join(", "))
}

fn begin_table(page: &mut String, label: &str) {
    let _ = write!(
        page,
        "<div class=\"roll\" tabindex=\"0\" role=\"group\" aria-label=\"{}\"><table>\n<thead><tr>",
        Text(label)
    );
}

/// The headline metrics of each variant.
pub(super) fn headline(page: &mut String, summary: &Summary) {
    let metrics = summary.foremost(MAX_HEADLINE);
    if metrics.is_empty() {
        return;
    }
    page.push_str("<h2>Figures</h2>\n");
    begin_table(page, "Figures of each variant");
    let names: Vec<&String> = summary.varied.keys().collect();
    for name in &names {
        // Keys are long: a line may end at each of their points.
        let parts: Vec<String> = name.split('.').map(|part| Text(part).to_string()).collect();
        let _ = write!(page, "<th scope=\"col\">{}</th>", parts.join(".<wbr>"));
    }
    if names.is_empty() {
        page.push_str("<th scope=\"col\">Variant</th>");
    }
    page.push_str("<th scope=\"col\" class=\"number\">Seeds</th>");
    for metric in &metrics {
        let heading = with_unit(&sentence(&words(metric)), unit_of(metric));
        let _ = write!(page, "<th scope=\"col\" class=\"number\">{}</th>", Text(&heading));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for variant in summary.variants.iter().take(MAX_ROWS) {
        page.push_str("<tr>");
        for name in &names {
            let value = variant.parameters.get(*name).map_or("", String::as_str);
            let _ = write!(page, "<th scope=\"row\">{}</th>", Text(value));
        }
        if names.is_empty() {
            page.push_str("<th scope=\"row\">as the scenario says</th>");
        }
        let _ = write!(page, "<td class=\"number\">{}</td>", variant.seeds.len());
        for metric in &metrics {
            page.push_str(&cell(variant, metric));
        }
        page.push_str("</tr>\n");
    }
    page.push_str(
        "</tbody>\n</table></div>\n<p class=\"caption\">Mean over seeds ± half the 95 % confidence interval of the \
         mean (Student's t).</p>\n",
    );
}

fn cell(variant: &Variant, metric: &str) -> String {
    let text = variant.metrics.get(metric).map_or("–".into(), number::sample);
    format!("<td class=\"number\">{text}</td>")
}

/// How metrics grow with a parameter that spans a factor of ten at least.
pub(super) fn growth(page: &mut String, summary: &Summary) {
    let Some(parameter) = main_parameter(summary).filter(|parameter| spans_much(summary, parameter)) else {
        return;
    };
    let foremost = summary.foremost(MAX_HEADLINE);
    let fitted = summary
        .metrics
        .iter()
        .filter(|metric| summary.differs(metric))
        .filter_map(|metric| Some((metric, summary.growth(metric, parameter)?)))
        .filter(|(metric, growth)| {
            let is_sure = growth.interval.is_none_or(|(low, high)| low > 0.0 || high < 0.0);
            is_sure || foremost.contains(&metric.as_str())
        });
    let _ = writeln!(page, "<h2>Growth with {}</h2>", Text(&words(parameter)));
    begin_table(page, "Growth");
    page.push_str(
        "<th scope=\"col\">Figure</th><th scope=\"col\" class=\"number\">Exponent</th>\
         <th scope=\"col\" class=\"number\">95 % interval</th><th scope=\"col\" class=\"number\">Explained</th>\
         </tr></thead>\n<tbody>\n",
    );
    for (metric, growth) in fitted.take(MAX_ROWS) {
        let interval = growth.interval.map_or("–".into(), |(low, high)| {
            format!("{} to {}", number::plain(low), number::plain(high))
        });
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{interval}</td>\
             <td class=\"number\">{:.1} %</td></tr>",
            Text(&words(metric)),
            number::plain(growth.exponent),
            growth.explained * 100.0
        );
    }
    let _ = writeln!(
        page,
        "</tbody>\n</table></div>\n<p class=\"caption\">Least squares on logarithms of the means: a figure grows as {} to \
         the power of the exponent. Where little is explained, it does not grow as a power. Beside the figures above, those \
         are shown whose exponent is not 0 by its interval.</p>",
        Text(&words(parameter))
    );
}

fn spans_much(summary: &Summary, parameter: &str) -> bool {
    let values = summary.varied.get(parameter).into_iter().flatten();
    let numbers: Vec<f64> = values.filter_map(|value| parsed(value)).collect();
    let sample = Sample::of(&numbers);
    numbers.len() > 2
        && sample.is_some_and(|sample| sample.smallest > 0.0 && sample.largest / sample.smallest >= 10.0)
}

/// Tables that the first run has for people.
pub(super) fn tables(page: &mut String, experiment: &Experiment) {
    let Some(run) = experiment.runs.first() else {
        return;
    };
    for table in &run.tables {
        let _ = writeln!(page, "<h2>{}</h2>", Text(&sentence(&table.name)));
        begin_table(page, &table.name);
        for column in &table.columns {
            let _ = write!(page, "<th scope=\"col\">{}</th>", Text(column));
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        for row in table.rows.iter().take(MAX_ROWS) {
            page.push_str("<tr>");
            for (place, cell) in row.iter().enumerate() {
                let (open, close) = if place == 0 {
                    ("<th scope=\"row\">", "</th>")
                } else {
                    ("<td>", "</td>")
                };
                let _ = write!(page, "{open}{}{close}", Text(cell));
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody>\n</table></div>\n");
        if experiment.runs.len() > 1 {
            let _ = writeln!(
                page,
                "<p class=\"caption\">Of the first run, seed {}.</p>",
                run.manifest.seed
            );
        }
    }
}

/// Every metric of every variant, folded.
pub(super) fn all_metrics(page: &mut String, summary: &Summary) {
    page.push_str("<h2>All figures</h2>\n<details>\n<summary>Every metric of every variant</summary>\n");
    begin_table(page, "Every metric of every variant");
    page.push_str("<th scope=\"col\">Metric</th><th scope=\"col\">Variant</th>");
    for heading in ["Mean", "95 % interval", "Median", "Smallest", "Largest"] {
        let _ = write!(page, "<th scope=\"col\" class=\"number\">{heading}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    let rows = summary.metrics.iter().flat_map(|metric| {
        let has = move |variant: &&Variant| variant.metrics.contains_key(metric);
        summary
            .variants
            .iter()
            .filter(has)
            .map(move |variant| (metric, variant))
    });
    let count = rows.clone().count();
    for (metric, variant) in rows.take(MAX_ROWS) {
        let Some(sample) = variant.metrics.get(metric) else {
            continue;
        };
        let interval = sample.interval.map_or("–".into(), |(low, high)| {
            format!("{} to {}", number::plain(low), number::plain(high))
        });
        let _ = write!(
            page,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{interval}</td>",
            Text(metric),
            Text(&varied_label(summary, variant)),
            number::plain(sample.mean)
        );
        for value in [sample.median, sample.smallest, sample.largest] {
            let _ = write!(page, "<td class=\"number\">{}</td>", number::plain(value));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
    if count > MAX_ROWS {
        let _ = writeln!(
            page,
            "<p class=\"caption\">{MAX_ROWS} of {count} rows; metrics.csv has all.</p>"
        );
    }
    page.push_str("</details>\n");
}

/// Where it comes from and how to make it again.
pub(super) fn origin(page: &mut String, experiment: &Experiment, summary: &Summary) {
    let Some(first) = experiment.runs.first() else {
        return;
    };
    page.push_str("<h2>Make it again</h2>\n<pre>");
    for variant in summary.variants.iter().take(MAX_COMMANDS) {
        let run = variant.runs.first().and_then(|place| experiment.runs.get(*place));
        let _ = writeln!(page, "{}", Text(run.map_or("", |run| &run.manifest.replay)));
    }
    page.push_str("</pre>\n");
    let notes = match (summary.variants.len(), experiment.runs.len()) {
        (1, 1) => "The same digest must come out, on every machine.".to_owned(),
        (variants, _) => format!(
            "The first seed of {} variants; each run's folder has its own command in manifest.json. The same digests \
             must come out, on every machine.",
            if variants > MAX_COMMANDS {
                format!("{MAX_COMMANDS} of {variants}")
            } else {
                variants.to_string()
            }
        ),
    };
    let _ = writeln!(page, "<p class=\"caption\">{notes}</p>\n<h2>Manifest</h2>\n<dl>");
    let each = |of: fn(&Manifest) -> String| {
        let mut found: Vec<String> = experiment.runs.iter().map(|run| of(&run.manifest)).collect();
        found.sort();
        found.dedup();
        found.truncate(20);
        found.join("; ")
    };
    let host = |manifest: &Manifest| {
        let host = &manifest.host;
        format!("{} {}, {}, {} cores", host.os, host.arch, host.cpu, host.cores)
    };
    let changes = |manifest: &Manifest| {
        let changes = manifest.changes.iter();
        let changes: Vec<String> = changes.map(|(key, value)| format!("{key} = {value}")).collect();
        if changes.is_empty() {
            "nothing".to_owned()
        } else {
            changes.join(", ")
        }
    };
    let wall: f64 = experiment.runs.iter().map(|run| run.manifest.wall_s).sum();
    let memory = experiment
        .runs
        .iter()
        .map(|run| run.manifest.peak_rss_bytes)
        .max()
        .unwrap_or(0);
    for (name, value) in [
        ("Version", each(|manifest| manifest.version.clone())),
        ("Scenario", each(|manifest| manifest.scenario.clone())),
        (
            "Scenario's BLAKE3",
            each(|manifest| manifest.scenario_digest.clone()),
        ),
        ("Changed in it for all runs", each(changes)),
        ("Digest of all runs", experiment.digest()),
        ("Host", each(host)),
        ("Threads", each(|manifest| manifest.threads.to_string())),
        ("Real time", format!("{} s in all", number::plain(wall))),
        (
            "Memory",
            format!("{} MiB at most", number::plain((memory / (1 << 20)) as f64)),
        ),
    ] {
        let _ = writeln!(page, "<dt>{name}</dt><dd><code>{}</code></dd>", Text(&value));
    }
    page.push_str("</dl>\n");
    digests(page, experiment, summary);
    let _ = writeln!(
        page,
        "<details>\n<summary>The scenario</summary>\n<pre>{}</pre>\n</details>",
        Text(&first.scenario)
    );
    let _ = writeln!(
        page,
        "<footer><p class=\"note\">To cite: Gristmill {}, simulation “{}”, {} runs, digest <code>{}</code>.</p></footer>",
        Text(&first.manifest.version),
        Text(&experiment.name),
        experiment.runs.len(),
        experiment.digest()
    );
}

fn digests(page: &mut String, experiment: &Experiment, summary: &Summary) {
    page.push_str("<details>\n<summary>The digest of each run</summary>\n");
    begin_table(page, "The digest of each run");
    page.push_str(
        "<th scope=\"col\">Variant</th><th scope=\"col\" class=\"number\">Seed</th><th scope=\"col\">Digest</th>\
         </tr></thead>\n<tbody>\n",
    );
    let rows = summary
        .variants
        .iter()
        .flat_map(|variant| variant.runs.iter().map(move |place| (variant, place)));
    for (variant, place) in rows.take(MAX_ROWS) {
        let Some(run) = experiment.runs.get(*place) else {
            continue;
        };
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td><code>{}</code></td></tr>",
            Text(&varied_label(summary, variant)),
            run.manifest.seed,
            Text(&run.manifest.digest)
        );
    }
    page.push_str("</tbody>\n</table></div>\n</details>\n");
}
