//! Dates for templates that ask for today's, from a time that the caller sets.

/// 26 July 2024, 00:00 UTC, in seconds since 1970.
pub(super) const DEFAULT: i64 = 1_721_952_000;

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
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// `seconds` since 1970 (UTC) in the format of C's `strftime`, English names; unknown fields stay as written.
pub(super) fn strftime(seconds: i64, format: &str) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let day_name = DAYS.get(days.rem_euclid(7) as usize).copied().unwrap_or_default();
    let short = |name: &str| name.get(..3).unwrap_or_default().to_owned();
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut field = rest.next();
        let bare = field == Some('-');
        if bare {
            field = rest.next();
        }
        let two = |n: i64| if bare { n.to_string() } else { format!("{n:02}") };
        match field {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &two(year.rem_euclid(100)),
            Some('m') => out += &two(month),
            Some('d') => out += &two(day),
            Some('e') => out += &format!("{day:2}"),
            Some('B') => out += month_name,
            Some('b' | 'h') => out += &short(month_name),
            Some('A') => out += day_name,
            Some('a') => out += &short(day_name),
            Some('H') => out += &two(hour),
            Some('I') => out += &two((hour + 11) % 12 + 1),
            Some('p') => out += if hour < 12 { "AM" } else { "PM" },
            Some('M') => out += &two(minute),
            Some('S') => out += &two(second % 60),
            Some('j') => out += &format!("{:03}", days - days_before(year) + 1),
            Some('F') => out += &format!("{year}-{month:02}-{day:02}"),
            Some('T') => out += &format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => out += "UTC",
            Some('%') => out.push('%'),
            other => {
                out.push('%');
                out.extend(bare.then_some('-').into_iter().chain(other));
            }
        }
    }
    out
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years that begin in March have their leap day at the end: Hinnant, "chrono-compatible low-level date
    // algorithms".
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days from 1970 to the first of January of `year`.
fn days_before(year: i64) -> i64 {
    let y = year - 1;
    y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) - 719_162
}
