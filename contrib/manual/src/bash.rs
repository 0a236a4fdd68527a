//! Completion for bash. It needs no bash-completion.

use std::fmt::Write;

use ringlookupd::options::FlagHelp;

pub fn completion(flags: &[FlagHelp]) -> String {
    let with_dash = |flag: &FlagHelp| format!("-{}", flag.name);
    let all: Vec<_> = flags.iter().map(with_dash).collect();
    let mut cases = String::new();
    for flag in flags.iter().filter(|flag| flag.is_path()) {
        writeln!(cases, "    -{}) compopt -o filenames 2> /dev/null; set -- -f ;;", flag.name)
            .expect("a String takes all");
    }
    for flag in flags.iter().filter(|flag| !flag.values.is_empty()) {
        writeln!(cases, "    -{}) set -- -W '{}' ;;", flag.name, flag.values.join(" "))
            .expect("a String takes all");
    }
    let other = flags.iter().filter(|flag| !flag.argument.is_empty() && !flag.is_path() && flag.values.is_empty());
    let other: Vec<_> = other.map(with_dash).collect();
    format!(
        r#"# Completion of ringlookupd's flags for bash.

_ringlookupd() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD - 1]}} dash=
  # `-io=e` is three words.
  if [[ $word == = ]]; then
    word=
  elif [[ $flag == = ]]; then
    flag=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  # What completes the word.
  case ${{flag/#--/-}} in
{cases}    {other}) return ;;
    *)
      if [[ $word == --* ]]; then
        word=${{word#-}} dash=-
      fi
      set -- -W '{all}'
      ;;
  esac
  mapfile -t COMPREPLY < <(compgen -P "$dash" "$@" -- "$word")
}}

complete -F _ringlookupd ringlookupd
"#,
        other = other.join(" | "),
        all = all.join(" "),
    )
}
