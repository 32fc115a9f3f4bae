//! The calendar date of a Unix time, in UTC, for chat templates that tell the model what day it is. Pure.

use gristmill_protocol::civil_date::CivilDate;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// Writes a Unix time in seconds by a `strftime` format; none where a directive is not known.
pub(super) fn format(format: &str, unix_s: u64) -> Option<String> {
    let days = unix_s / 86_400;
    let date = CivilDate::of_day(days);
    let CivilDate { year, month, day } = date;
    let second_of_day = unix_s % 86_400;
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let month_name = MONTHS.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    let day_name = DAYS.get(usize::try_from(days % 7).ok()?)?;
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        text.push_str(&match characters.next()? {
            'Y' => year.to_string(),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'B' => (*month_name).to_owned(),
            'b' => month_name.chars().take(3).collect(),
            'd' => format!("{day:02}"),
            'A' => (*day_name).to_owned(),
            'a' => day_name.chars().take(3).collect(),
            'H' => format!("{hour:02}"),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'F' => date.to_string(),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            '%' => "%".to_owned(),
            _ => return None,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_right() {
        for (unix_s, expected) in [
            (0, "Thursday 1970-01-01 00:00:00"),
            (951_782_399, "Monday 2000-02-28 23:59:59"),
            (951_868_800, "Wednesday 2000-03-01 00:00:00"),
            (1_709_164_800, "Thursday 2024-02-29 00:00:00"),
            (1_767_225_599, "Wednesday 2025-12-31 23:59:59"),
            (4_107_542_400, "Monday 2100-03-01 00:00:00"),
        ] {
            assert_eq!(format("%A %F %T", unix_s).unwrap(), expected);
        }
        assert_eq!(
            format("%a %d %b %y %B 100%%", 0).unwrap(),
            "Thu 01 Jan 70 January 100%"
        );
    }

    #[test]
    fn unknown_directives_are_told() {
        assert_eq!(format("%Q", 0), None);
        assert_eq!(format("50%", 0), None);
    }
}
