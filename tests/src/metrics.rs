//! Values out of `/metrics`.

use crate::gateway::Running;

impl Running {
    /// The sum of all series of this name with all of these labels; zero when there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.admin("/metrics").await.text(), name, labels)
    }
}

/// The same in an exposition that was scraped before.
pub fn sum(exposition: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has_labels =
        |series: &str| labels.iter().all(|(key, value)| series.contains(&format!("{key}=\"{value}\"")));
    let series = exposition.lines().filter_map(|line| line.rsplit_once(' '));
    let wanted = series.filter(|(series, _)| series.split('{').next() == Some(name) && has_labels(series));
    wanted.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}
