//! Which files of a repository are a model, by their names, as llama.cpp understands them.

/// Words in names of files that go with a model and are none.
const SIDE_FILES: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];
/// What is taken if nobody says which.
const USUAL: [&str; 2] = ["q4_k_m", "q8_0"];

/// Splits `user/model:quant`. The quantisation is empty where there is none.
pub fn repo_and_quant(text: &str) -> Option<(&str, &str)> {
    let (repo, quant) = text.split_once(':').unwrap_or((text, ""));
    let (user, name) = repo.split_once('/')?;
    let is_plain = |text: &str| {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        text.chars().all(is_known)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    };
    (is_plain(user) && is_plain(name) && !quant.contains(':')).then_some((repo, quant))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_model(path: &str) -> bool {
    path.ends_with(".gguf") && !SIDE_FILES.iter().any(|word| file_name(path).contains(word))
}

/// The first of several files, or the only one.
fn is_first(path: &str) -> bool {
    split(path).is_none_or(|(_, number, _)| number == 1)
}

/// The name before the number, the number, and how many there are, of `NAME-00002-of-00005.gguf`.
fn split(path: &str) -> Option<(&str, u32, u32)> {
    let number = |text: &str| text.parse().ok().filter(|_| text.len() == 5);
    let (rest, count) = path.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (name, at) = rest.rsplit_once('-')?;
    Some((name, number(at)?, number(count)?))
}

/// The file that `quant` means among `paths`.
pub fn best<'a>(paths: &'a [String], quant: &str) -> Option<&'a String> {
    let models = || paths.iter().filter(|path| is_model(path) && is_first(path));
    let has = |path: &str, word: &str| {
        let path = path.to_ascii_lowercase();
        let mut found = path.match_indices(word);
        found.any(|(at, _)| path[at + word.len()..].starts_with(['.', '-']))
    };
    let of = |word: &str| models().find(|path| has(path, word));
    match quant {
        "" => USUAL.into_iter().find_map(of).or_else(|| models().next()),
        quant => of(&quant.to_ascii_lowercase()),
    }
}

/// All files of the model whose first is `first`, and the names of those that `paths` lacks.
pub fn splits<'a>(paths: &'a [String], first: &'a String) -> (Vec<&'a String>, Vec<String>) {
    let Some((name, _, count)) = split(first) else {
        return (vec![first], Vec::new());
    };
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let wanted = format!("{name}-{number:05}-of-{count:05}.gguf");
        match paths.iter().find(|path| **path == wanted) {
            Some(path) => there.push(path),
            None => missing.push(wanted),
        }
    }
    (there, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &[&str]) -> Vec<String> {
        list.iter().map(|path| path.to_string()).collect()
    }

    #[test]
    fn a_repository_has_a_user_a_name_and_perhaps_a_quantisation() {
        assert_eq!(repo_and_quant("a-b/c.d"), Some(("a-b/c.d", "")));
        assert_eq!(repo_and_quant("a/c:Q4_K_M"), Some(("a/c", "Q4_K_M")));
        for bad in [
            "a", "/b", "a/", "a/b/c", "a/..", "../b", "a b/c", "a/b:c:d", "",
        ] {
            assert_eq!(repo_and_quant(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_quantisation_is_found_and_side_files_are_not_meant() {
        let list = paths(&[
            "README.md",
            "mmproj-Q8_0.gguf",
            "m-Q8_0.gguf",
            "big/m-Q6_K-00001-of-00003.gguf",
            "big/m-Q6_K-00003-of-00003.gguf",
            "m-q4_k_m.gguf",
        ]);
        let best = |quant| best(&list, quant).map(String::as_str);
        assert_eq!(best(""), Some("m-q4_k_m.gguf"));
        assert_eq!(best("q8_0"), Some("m-Q8_0.gguf"));
        assert_eq!(best("Q6_K"), Some("big/m-Q6_K-00001-of-00003.gguf"));
        assert_eq!(best("Q4"), None);
        let (there, missing) = splits(&list, &list[3]);
        assert_eq!(there, [&list[3], &list[4]]);
        assert_eq!(missing, ["big/m-Q6_K-00002-of-00003.gguf"]);
        assert_eq!(splits(&list, &list[2]), (vec![&list[2]], vec![]));
        let odd = paths(&["b-00002-of-00002.gguf", "a-IQ1_S.gguf"]);
        assert_eq!(super::best(&odd, ""), Some(&odd[1]));
    }
}
