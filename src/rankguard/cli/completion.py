"""`rankguard completion bash|zsh|fish`: a script for the shell, made from the tables of verbs and options.

What all three know is here: `spell_out` says of each option what its value may be. The scripts themselves are one
function a shell. They need nothing but the shell (no bash-completion), start `rankguard` only for the ids of runs and
the names of drills, and complete nothing but files behind PROGRAM: those words are its own.
"""

from collections.abc import Callable, Iterator, Sequence
from shlex import quote

from rankguard.cli.options import TOPICS, Option
from rankguard.cli.topics import PAGES
from rankguard.cli.verbs import VERBS, Operand, Verb, common, parse
from rankguard.errors import UsageError
from rankguard.record import Record

_SUGGESTED = {
    "nproc_per_node": ("auto", "cpu", "gpu", "xpu"),
    "stdin": ("none",),
    "rdzv_backend": ("static", "c10d"),
    "node_rank": ("0", "auto"),
    "signals_to_handle": ("SIGQUIT", "SIGUSR1", "SIGUSR2"),
}
"""Values that an option takes besides others."""
_KINDS = {"DIR": "folder", "CMD": "command", "FILE": "file"}
RUNS = r"""rankguard runs -n 50 --json 2>/dev/null | sed -n 's/^  "run": "\(.*\)",$/\1/p'"""
"""The list for people has a heading, and cuts long names."""
DRILLS = "rankguard drill 2>/dev/null | cut -d ' ' -f 1"


class Value(Record):
    """What may follow an option or stand as an operand. `kind`: words, file, folder, command, run, drill, any or none."""

    kind: str
    words: tuple[str, ...] = ()


def completion(words: Sequence[str]) -> int:
    """Print the script. Raises `UsageError`."""
    asked = parse("completion", words)
    if asked is None:
        return 0
    if asked.shell not in SHELLS:
        raise UsageError(f"there is no completion for `{asked.shell}`", f"rankguard completion {'|'.join(SHELLS)}")
    print("\n".join(SHELLS[asked.shell]()))
    return 0


def value_of(option: Option) -> Value:
    """What follows an option."""
    if option.metavar is None:
        return Value("none")
    words = option.choices or _SUGGESTED.get(option.field, ())
    return Value("words", words) if words else Value(_KINDS.get(option.metavar, "any"))


def value_at(operand: Operand) -> Value:
    """What stands as an operand."""
    words = {"shell": tuple(SHELLS), "topic": (*VERBS, *PAGES, *TOPICS, "all")}.get(operand.kind)
    return Value("words", words) if words else Value(operand.kind)


def options_of(verb: Verb) -> tuple[Option, ...]:
    """Its own and the common ones, each once."""
    return (*verb.options, *common(verb.name))


# ── bash ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _bash() -> Iterator[str]:
    yield "# bash completion of rankguard, made by `rankguard completion bash`. To have it in every shell:"
    yield "#   rankguard completion bash > ~/.local/share/bash-completion/completions/rankguard"
    yield ""
    yield "_rankguard_takes() {  # VERB OPTION: whether a value follows"
    yield '    case "$1 $2" in'
    for verb in VERBS.values():
        valued = [name for option in options_of(verb) if option.metavar is not None for name in option.names]
        valued += ["-h", "--help"] if verb.name == "run" else []
        if valued:
            yield f"        {_patterns(verb, valued)}) return 0 ;;"
    yield "    esac"
    yield "    return 1"
    yield "}"
    yield ""
    yield "_rankguard_value() {  # VERB OPTION-OR-NUMBER CURRENT"
    yield '    case "$1 $2" in'
    for verb in VERBS.values():
        for option in options_of(verb):
            if option.metavar is not None and value_of(option).kind != "any":
                yield f"        {_patterns(verb, option.names)}) {_bash_words(value_of(option))} ;;"
        if verb.name != "run":
            for n, operand in enumerate(verb.operands, 1):
                yield f"        '{verb.name} {n}') {_bash_words(value_at(operand))} ;;"
    yield f"        {_patterns(VERBS['run'], ('-h', '--help'))}) {_bash_words(Value('words', (*TOPICS, 'all')))} ;;"
    yield "    esac"
    yield "}"
    yield ""
    yield "_rankguard_options() {"
    yield '    case "$1" in'
    for verb in VERBS.values():
        names = " ".join(name for option in options_of(verb) for name in option.names)
        yield f"        {verb.name}) echo {quote(names)} ;;"
    yield "    esac"
    yield "}"
    yield _BASH.replace("VERBS", " ".join(VERBS))


def _patterns(verb: Verb, names: Sequence[str]) -> str:
    return " | ".join(f"'{verb.name} {name}'" for name in names)


def _bash_words(value: Value) -> str:
    match value.kind:
        case "words":
            return f'_rankguard_reply "$3" -W {quote(" ".join(value.words))}'
        case "folder":
            return '_rankguard_reply "$3" -o filenames -d'
        case "file":
            return '_rankguard_reply "$3" -o filenames -f'
        case "command":
            return '_rankguard_reply "$3" -c'
        case "run":
            return f'_rankguard_reply "$3" -W "$({RUNS})"'
        case "drill":
            return f'_rankguard_reply "$3" -W "$({DRILLS})"'
    return ":"


_BASH = r"""
_rankguard_reply() {  # CURRENT [-o filenames] HOW
    local current=$1
    shift
    if [[ $1 == -o ]]; then
        compopt -o "$2" 2>/dev/null
        shift 2
    fi
    mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen "$@" -- "$current")
}

_rankguard() {
    local cur=${COMP_WORDS[COMP_CWORD]} verb= operands=0 option= ended= word n
    COMPREPLY=()
    [[ $cur == '=' ]] && cur=  # bash takes `--option=value` for three words
    for ((n = 1; n < COMP_CWORD; n++)); do
        word=${COMP_WORDS[n]}
        if [[ -z $verb ]]; then
            [[ $word == -* ]] || verb=$word
        elif [[ -n $option ]]; then
            [[ $word == '=' ]] || option=
        elif [[ -z $ended && $word == -- ]]; then
            ended=1
        elif [[ -z $ended && $word == -?* ]]; then
            word=${word//_/-}
            _rankguard_takes "$verb" "$word" && option=$word
        else
            ((operands++))
            [[ $verb == run ]] && break
        fi
    done
    if [[ -z $verb ]]; then
        _rankguard_reply "$cur" -W 'VERBS --help --version --no-color'
    elif [[ $verb == run && $operands -gt 0 ]]; then
        _rankguard_reply "$cur" -o filenames -f
    elif [[ -n $option ]]; then
        _rankguard_value "$verb" "$option" "$cur"
    elif [[ -z $ended && $cur == -* ]]; then
        _rankguard_reply "${cur//_/-}" -W "$(_rankguard_options "$verb")"
    elif [[ $verb == run ]]; then
        _rankguard_reply "$cur" -o filenames -f
        [[ -z $cur || ${#COMPREPLY[@]} -gt 0 ]] || _rankguard_reply "$cur" -c
    else
        _rankguard_value "$verb" $((operands + 1)) "$cur"
    fi
    return 0
}
complete -F _rankguard rankguard"""


# ── zsh ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _zsh() -> Iterator[str]:
    yield "#compdef rankguard"
    yield "# zsh completion of rankguard, made by `rankguard completion zsh`. To have it in every shell: write it to a file"
    yield "# `_rankguard` in a folder of $fpath, or `source <(rankguard completion zsh)` after compinit."
    yield ""
    yield '_rankguard_runs() { compadd -- ${(f)"$(' + RUNS + ')"} }'
    yield '_rankguard_drills() { compadd -- ${(f)"$(' + DRILLS + ')"} }'
    yield ""
    yield "_rankguard() {"
    yield "    local context state state_descr line"
    yield "    typeset -A opt_args"
    yield "    if ((CURRENT == 2)); then"
    yield "        local -a verbs=("
    for verb in VERBS.values():
        yield f"            {quote(f'{verb.name}:{verb.summary}')}"
    yield "        )"
    yield "        _describe verb verbs"
    yield "        return"
    yield "    fi"
    yield "    local verb=$words[2]"
    yield "    shift words"
    yield "    ((CURRENT--))"
    yield "    case $verb in"
    for verb in VERBS.values():
        yield f"        {verb.name})"
        yield '            _arguments -s -S -A "-*" \\'
        for option in options_of(verb):
            yield f"                {_zsh_option(option)} \\"
        if verb.name == "run":
            yield "                '1:PROGRAM:_rankguard_program' \\"
            yield "                '*:argument of PROGRAM:_files'"
        else:
            for n, operand in enumerate(verb.operands, 1):
                yield f"                {quote(f'{n}:{operand.name}:{_zsh_value(value_at(operand))}')} \\"
            yield "                && return"
        yield "            ;;"
    yield "    esac"
    yield "}"
    yield ""
    yield "_rankguard_program() { _files || _command_names -e }"
    yield ""
    yield 'if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _rankguard "$@"; else compdef _rankguard rankguard; fi'


def _zsh_option(option: Option) -> str:
    told = option.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    more = f":{option.metavar}:{_zsh_value(value_of(option))}" if option.metavar is not None else ""
    body = quote(f"[{told}]{more.replace('`', '')}")
    once = "'*'" if option.repeats else quote(f"({' '.join(option.names)})")
    if len(option.names) == 1:
        return f"{once}{option.names[0]}{body}"
    return f"{once}{{{','.join(option.names)}}}{body}"


def _zsh_value(value: Value) -> str:
    match value.kind:
        case "words":
            return f"({' '.join(value.words)})"
        case "folder":
            return "_files -/"
        case "file":
            return "_files"
        case "command":
            return "_command_names -e"
        case "run" | "drill":
            return f"_rankguard_{value.kind}s"
    return " "


# ── fish ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fish() -> Iterator[str]:
    valued = " ".join(
        name for verb in VERBS.values() for option in verb.options if option.metavar for name in option.names
    )
    yield "# fish completion of rankguard, made by `rankguard completion fish`. To have it in every shell:"
    yield "#   rankguard completion fish > ~/.config/fish/completions/rankguard.fish"
    yield _FISH.replace("VALUED", valued)
    yield "complete -c rankguard -f"
    for verb in VERBS.values():
        yield f"complete -c rankguard -n '__rankguard_at verb' -a {verb.name} -d {quote(verb.summary)}"
    for verb in VERBS.values():
        here = f"complete -c rankguard -n '__rankguard_at {verb.name}'"
        for option in options_of(verb):
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            yield f"{here} {names}{_fish_value(value_of(option))} -d {quote(option.help)}"
        for operand in verb.operands:
            yield f"{here}{_fish_operand(value_at(operand))} -d {operand.name}"
    yield "complete -c rankguard -n '__rankguard_at program' -F"


def _fish_value(value: Value) -> str:
    match value.kind:
        case "none":
            return ""
        case "words":
            return f" -x -a {quote(' '.join(value.words))}"
        case "folder":
            return " -x -a '(__fish_complete_directories)'"
        case "command":
            return " -x -a '(__fish_complete_command)'"
        case "file":
            return " -r -F"
    return " -x"


def _fish_operand(value: Value) -> str:
    match value.kind:
        case "words":
            return f" -a {quote(' '.join(value.words))}"
        case "run":
            return f" -a {quote(f'({RUNS})')}"
        case "drill":
            return f" -a {quote(f'({DRILLS})')}"
    return " -F"


_FISH = r"""
function __rankguard_at -d 'whether the word that is completed belongs to: verb, the options of a VERB, program'
    set -l words (commandline -opc)[2..-1]
    set -l verb verb
    set -l skip 0
    for word in $words
        if test $verb = verb
            string match -q -- '-*' $word; or set verb $word
        else if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $word
            contains -- (string replace -a _ - -- $word) VALUED; and set skip 1
        else if test $verb = run
            set verb program
        end
    end
    test $verb = $argv[1]
end
"""

SHELLS: dict[str, Callable[[], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
