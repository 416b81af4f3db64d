# Workhall workers and callers in bash 4.4 or newer: source this file. See README.md beside it.
#
# All that begins with `workhall_` is for you, all that begins with `__wh_` is not. JSON is read and written here, by bash
# alone: a line is split at its quotes and brackets by builtins that take linear time, never walked byte by byte.

[[ ${BASH_VERSINFO[0]} -gt 4 || ( ${BASH_VERSINFO[0]} -eq 4 && ${BASH_VERSINFO[1]} -ge 4 ) ]] ||
  { echo "workhall.bash needs bash 4.4 or newer, and this is $BASH_VERSION" >&2; return 2; }

__wh_conn='' __wh_ref=0 __wh_ending='' __wh_cancelled='' __wh_gone='' __wh_current='' __wh_partial='' __wh_pid=''
__wh_queue=() __wh_t=() __wh_e=()
readonly __wh_line_max=16777216 __wh_error_bytes=4096
# Seconds that the programs which read a function's stderr may take to start and to read it.
readonly __wh_patience=10
# Levels that a value may nest: a result, an argument in its list, the value of a signal.
readonly __wh_result_levels=64 __wh_levels=63 __wh_signal_levels=62
# The variables that the functions here have for themselves or answer by. One that is readonly for the whole shell no `local` can hide.
readonly __wh_names=(
  IFS LC_ALL REPLY WORKHALL_RECEIPT WORKHALL_ITEMS WORKHALL_KEYS WORKHALL_ARGS WORKHALL_METHOD WORKHALL_MESSAGE WORKHALL_SENDER WORKHALL_SENDER_NUMBER
  args argument at base body bytes chunk cli close code command count depth descriptor detail digits entry escape exponent fields flags found fraction
  inside items json key keys kind known length levels line list low mark method name now number open out part parts piece pieces raw rest seconds
  sequence shown starts status tail text texts then timeout token until value wait want what whole word worker
)
readonly __wh_number='^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$'

# ---- JSON: reading ------------------------------------------------------------------------------------------------

# Splits JSON into tokens, in __wh_t: brackets, commas, colons, bare words, and texts with their quotes as they are. Puts into
# __wh_e[i] the place behind the value that begins at token i. Fails if it is no JSON.
__wh_parse() {
  local -; set -f
  local LC_ALL=C IFS=$' \t\r\n' part parts pieces=() tail inside=''
  __wh_t=() __wh_e=()
  mapfile -t -d '"' parts <<<"$1"
  for part in "${parts[@]}"; do
    if [[ $inside ]]; then
      pieces+=("$part")
      tail=${part##*[!\\]}
      # Behind an odd number of backslashes the quote belongs to the text.
      if ((${#tail} % 2 == 0)); then
        IFS='"' part="${pieces[*]}" IFS=$' \t\r\n'
        __wh_t+=("\"$part\"")
        pieces=() inside=''
      fi
      continue
    fi
    inside=1
    case $part in
      , | :) __wh_t+=("$part") ;;
      *)
        part=${part//,/ , } part=${part//:/ : }
        part=${part//'['/ [ } part=${part//']'/ ] } part=${part//'{'/ '{' } part=${part//'}'/ '}' }
        # shellcheck disable=SC2206 # it is to be split
        __wh_t+=($part) ;;
    esac
  done
  [[ $inside && ${#pieces[@]} -eq 0 ]] && __wh_check
}

# What __wh_t holds, by the grammar. `then` is what may follow a value here.
__wh_check() {
  local token want=value then=end at=-1 close='' open=() starts=()
  for token in "${__wh_t[@]}"; do
    ((++at))
    case $want$token in
      more,) [[ $close = '}' ]] && want=key || want=value ;;
      colon:) want=value ;;
      value'"'* | first'"'*) __wh_e[at]=$((at + 1)) want=$then ;;
      nokey'"'* | key'"'*) want=colon ;;
      value'{' | first'{') open+=("$close") close='}' starts+=("$at") want=nokey then=more ;;
      value'[' | first'[') open+=("$close") close=']' starts+=("$at") want=first then=more ;;
      nokey'}' | first']' | more"$close")
        __wh_e[starts[-1]]=$((at + 1)) close=${open[-1]}
        unset 'open[-1]' 'starts[-1]'
        [[ $close ]] || then=end
        want=$then ;;
      valuetrue | valuefalse | valuenull | firsttrue | firstfalse | firstnull) __wh_e[at]=$((at + 1)) want=$then ;;
      value* | first*) [[ $token =~ $__wh_number ]] || return 1; __wh_e[at]=$((at + 1)) want=$then ;;
      *) return 1 ;;
    esac
  done
  [[ $want = end ]]
}

# The JSON of the value at token $1, in REPLY.
__wh_raw() {
  local LC_ALL=C
  printf -v REPLY %s "${__wh_t[@]:$1:${__wh_e[$1]} - $1}"
}

# The token of the member $2 of the object at token $1, in REPLY. Fails if there is none.
__wh_find() {
  local at=$(($1 + 1)) found='' key value
  [[ ${__wh_t[$1]-} = '{' ]] || return 1
  while [[ ${__wh_t[at]} != '}' ]]; do
    key=${__wh_t[at]} value=$((at + 2))
    if [[ $key = "\"$2\"" ]] || { [[ $key = *\\* ]] && workhall_text "$key" && [[ $REPLY = "$2" ]]; }; then found=$value; fi
    at=${__wh_e[value]}
    [[ ${__wh_t[at]} != , ]] || at=$((at + 1))
  done
  REPLY=$found
  [[ $found ]]
}

# The bare word or the JSON of a member: for numbers and names of reasons.
__wh_member() {
  __wh_find "$1" "$2" || { REPLY=''; return 1; }
  __wh_plain "$REPLY"
}

# The value at token $1 as a method gets it: a text without its quotes, a signal as its id, null as nothing, else JSON.
__wh_plain() {
  local token=${__wh_t[$1]}
  case $token in
    '"'*) workhall_text "$token" ;;
    null) REPLY='' ;;
    '{')
      if [[ ${__wh_t[$1 + 1]} = '"$signal"' && ${__wh_e[$1]} -eq $(($1 + 5)) && ${__wh_t[$1 + 3]} = '"'* ]]; then
        workhall_text "${__wh_t[$1 + 3]}"
      else
        __wh_raw "$1"
      fi ;;
    '[') __wh_raw "$1" ;;
    *) REPLY=$token ;;
  esac
}

# workhall_text JSON: the text that a JSON text means, in REPLY. Fails if it is no JSON text, or holds a NUL, which bash cannot.
workhall_text() {
  local LC_ALL=C IFS='' raw=$1 parts out=() at part code low bytes
  [[ $raw = '"'*'"' && ${#raw} -ge 2 ]] || return 1
  raw=${raw:1:${#raw}-2}
  if [[ $raw != *\\* ]]; then REPLY=$raw; return 0; fi
  mapfile -t -d '\' parts <<<"$raw"
  parts[-1]=${parts[-1]%$'\n'}
  out=("${parts[0]}")
  for ((at = 1; at < ${#parts[@]}; at++)); do
    part=${parts[at]}
    case $part in
      '') out+=('\' "${parts[++at]-}") ;;
      n*) out+=($'\n' "${part:1}") ;;
      t*) out+=($'\t' "${part:1}") ;;
      r*) out+=($'\r' "${part:1}") ;;
      b*) out+=($'\b' "${part:1}") ;;
      f*) out+=($'\f' "${part:1}") ;;
      [\"/]*) out+=("$part") ;;
      u[0-9a-fA-F][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F]*)
        code=$((16#${part:1:4}))
        part=${part:5} low=${parts[at + 1]-}
        if ((code >= 0xd800 && code < 0xdc00)) && [[ ! $part && $low = u[dD][c-fC-F][0-9a-fA-F][0-9a-fA-F]* ]]; then
          code=$((0x10000 + ((code - 0xd800) << 10) + 16#${low:1:4} - 0xdc00))
          part=${low:5} at=$((at + 1))
        fi
        ((code)) || return 1
        ((code >= 0xd800 && code < 0xe000)) && code=$((0xfffd))
        if ((code < 0x80)); then
          printf -v bytes '\\x%02x' "$code"
        elif ((code < 0x800)); then
          printf -v bytes '\\x%02x' $((code >> 6 | 0xc0)) $((code & 63 | 128))
        elif ((code < 0x10000)); then
          printf -v bytes '\\x%02x' $((code >> 12 | 0xe0)) $((code >> 6 & 63 | 128)) $((code & 63 | 128))
        else
          printf -v bytes '\\x%02x' $((code >> 18 | 0xf0)) $((code >> 12 & 63 | 128)) $((code >> 6 & 63 | 128)) $((code & 63 | 128))
        fi
        # shellcheck disable=SC2059 # it is made of \x alone
        printf -v bytes "$bytes"
        out+=("$bytes" "$part") ;;
      *) return 1 ;;
    esac
  done
  REPLY="${out[*]}"
}

# workhall_items [--json] [--] JSON: the items of a list, or the values of an object, into the array WORKHALL_ITEMS as a method gets its
# arguments, with --json as they are; the keys of an object into WORKHALL_KEYS.
workhall_items() {
  local - IFS=$' \t\n'; set +eu
  local raw=''
  [[ ${1-} = --json ]] && { raw=1; shift; }
  [[ ${1-} != -- ]] || shift
  WORKHALL_ITEMS=() WORKHALL_KEYS=()
  __wh_parse "$1" || { echo "workhall_items: this is no JSON: ${1:0:80}" >&2; return 2; }
  [[ ${__wh_t[0]} = ['{['] ]] || { echo "workhall_items: this is no list and no object: ${1:0:80}" >&2; return 2; }
  local at=1 items=() keys=()
  while [[ ${__wh_t[at]} != [']}'] ]]; do
    if [[ ${__wh_t[0]} = '{' ]]; then
      workhall_text "${__wh_t[at]}" || { echo 'workhall_items: a key holds a NUL, which bash cannot' >&2; return 2; }
      keys+=("$REPLY") at=$((at + 2))
    fi
    if [[ $raw ]]; then __wh_raw "$at"; else __wh_plain "$at"; fi || { echo "workhall_items: an item holds a NUL, which bash cannot" >&2; return 2; }
    items+=("$REPLY")
    at=${__wh_e[at]}
    [[ ${__wh_t[at]} != , ]] || at=$((at + 1))
  done
  # shellcheck disable=SC2034 # they are for who calls this
  WORKHALL_ITEMS=(${items[@]+"${items[@]}"}) WORKHALL_KEYS=(${keys[@]+"${keys[@]}"})
}

# ---- JSON: writing ------------------------------------------------------------------------------------------------

# What UTF-8 allows, in ranges of bytes.
readonly __wh_c=$'[\x80-\xbf]' __wh_utf8_2=$'[\xc2-\xdf]' __wh_high=$'[\x80-\xff]'
__wh_sequences=(
  $'\xf0[\x90-\xbf]'"$__wh_c$__wh_c" $'[\xf1-\xf3]'"$__wh_c$__wh_c$__wh_c" $'\xf4[\x80-\x8f]'"$__wh_c$__wh_c"
  $'\xe0[\xa0-\xbf]'"$__wh_c" $'[\xe1-\xec\xee\xef]'"$__wh_c$__wh_c" $'\xed[\x80-\x9f]'"$__wh_c" "$__wh_utf8_2$__wh_c"
)

# workhall_json TEXT: a text as JSON, in REPLY. Bytes that are no UTF-8 become U+FFFD.
workhall_json() {
  local LC_ALL=C text=$1 rest sequence code escape
  if [[ $text = *$__wh_high* ]]; then
    rest=$text
    # A letter in the place of each whole sequence: so no new one comes together.
    for sequence in "${__wh_sequences[@]}"; do rest=${rest//$sequence/x}; done
    if [[ $rest = *$__wh_high* ]]; then __wh_repair; fi
  fi
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  if [[ $text = *[$'\x01'-$'\x1f']* ]]; then
    text=${text//$'\n'/\\n} text=${text//$'\t'/\\t} text=${text//$'\r'/\\r}
    for code in {1..31}; do
      [[ $text = *[$'\x01'-$'\x1f']* ]] || break
      printf -v escape '\\x%02x' "$code"
      # shellcheck disable=SC2059
      printf -v escape "$escape"
      printf -v code '\\u%04x' "$code"
      text=${text//"$escape"/"$code"}
    done
  fi
  REPLY="\"$text\""
}

# Replaces in `text` the bytes that belong to no sequence. In pieces, for what is cut off is copied.
__wh_repair() {
  local base=0 at out=() length chunk piece sequence found
  while ((base < ${#text})); do
    chunk=${text:base:4096} at=0
    while ((at < ${#chunk} - 3 || (at < ${#chunk} && base + ${#chunk} == ${#text}))); do
      piece=${chunk:at:4} found=''
      if [[ $piece = $__wh_high* ]]; then
        for sequence in "${__wh_sequences[@]}"; do
          # shellcheck disable=SC2053 # it is a pattern
          for length in 4 3 2; do [[ ${piece:0:length} = $sequence ]] && { found=${piece:0:length}; break 2; }; done
        done
        out+=("${found:-$'\xef\xbf\xbd'}")
        at=$((at + (${#found} ? ${#found} : 1)))
      else
        # As far as there is ASCII, at once.
        piece=${chunk:at}
        piece=${piece%%$__wh_high*}
        out+=("$piece")
        at=$((at + ${#piece}))
      fi
    done
    base=$((base + at))
  done
  local IFS=''
  text="${out[*]}"
}

# Whether a number is one that a double can be near to: the supervisor takes no other.
__wh_in_range() {
  local LC_ALL=C whole fraction='' digits exponent=0
  [[ $1 = *[eE]* || ${#1} -gt 300 ]] || return 0
  [[ $1 =~ ^-?([0-9]+)(\.([0-9]+))?([eE]([+-]?)0*([0-9]*))?$ ]] || return 1
  whole=${BASH_REMATCH[1]} fraction=${BASH_REMATCH[3]} exponent=${BASH_REMATCH[6]:-0}
  digits=$whole$fraction digits=${digits#"${digits%%[!0]*}"}
  [[ $digits ]] || return 0
  # So large is only the exponent of what is no number any more, or is as good as zero.
  if ((${#exponent} > 9)); then [[ ${BASH_REMATCH[5]} = - ]]; return; fi
  exponent=$((${#digits} - ${#fraction} + ${BASH_REMATCH[5]}$exponent))
  digits=${digits}00000000000000000000
  ((exponent < 309)) || { ((exponent == 309)) && [[ ${digits:0:20} < 17976931348623158079 ]]; }
}

# Whether what stands in __wh_t can be sent, at most $1 levels deep; else why not, in REPLY.
__wh_sendable() {
  local LC_ALL=C token rest sequence depth=0 at=-1
  for token in "${__wh_t[@]}"; do
    ((++at))
    case $token in
      '"'*)
        [[ $token != *[$'\x01'-$'\x1f']* ]] || { REPLY='a text in it holds a control character as it is'; return 1; }
        rest=$token
        if [[ $token = *\\* ]]; then
          rest=${rest//\\[\"\\\/bfnrt]/x}
          rest=${rest//\\u[dD][89abAB][0-9a-fA-F][0-9a-fA-F]\\u[dD][c-fC-F][0-9a-fA-F][0-9a-fA-F]/x}
          [[ $rest != *\\u[dD][89a-fA-F]* ]] || { REPLY='a text in it holds half a surrogate pair'; return 1; }
          rest=${rest//\\u[0-9a-fA-F][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F]/x}
          [[ $rest != *\\* ]] || { REPLY="an escape in it is none of JSON's"; return 1; }
        fi
        if [[ $rest = *$__wh_high* ]]; then
          for sequence in "${__wh_sequences[@]}"; do rest=${rest//$sequence/x}; done
          [[ $rest != *$__wh_high* ]] || { REPLY='a text in it is no UTF-8'; return 1; }
        fi ;;
      ['{['])
        ((++depth <= $1)) || { REPLY="it nests more than $1 levels deep"; return 1; }
        # What stands for bytes must be bytes.
        if [[ $token = '{' && ( ${__wh_t[at + 1]} = '"$bytes"' || ${__wh_t[at + 1]} = *\\* ) ]] && __wh_bytes_of "$at"; then
          __wh_base64 "$REPLY" || { REPLY="\$bytes in it is no base64: ${REPLY:0:80}"; return 1; }
        fi ;;
      [']}']) depth=$((depth - 1)) ;;
      [-0-9]*) __wh_in_range "$token" || { REPLY="${token:0:80} is too large a number"; return 1; } ;;
    esac
  done
}

# The text of an object at token $1 that has no key but `$bytes`, as JSON in REPLY. Of a key that is there twice the last value counts.
__wh_bytes_of() {
  local at=$1 value
  while [[ ${__wh_t[at]} != '}' ]]; do
    workhall_text "${__wh_t[at + 1]}" && [[ $REPLY = '$bytes' ]] || return 1
    value=$((at + 3)) at=${__wh_e[at + 3]}
  done
  REPLY=${__wh_t[value]}
  [[ $REPLY = '"'* ]]
}

# Whether a JSON text is base64, with its padding and without a bit too much.
__wh_base64() {
  local text body json=$1
  workhall_text "$1" || { REPLY=$json; return 1; }
  text=$REPLY body=${REPLY%=} body=${body%=} REPLY=$json
  ((${#text} % 4 == 0)) && [[ $body != *[!A-Za-z0-9+/]* ]] || return 1
  case $((${#text} - ${#body})) in
    1) [[ $body = *[AEIMQUYcgkosw048] ]] ;;
    2) [[ $body = *[AQgw] ]] ;;
  esac
}

# Wrong use of a command: says so, and has it in __wh_wrong.
__wh_misused() {
  __wh_wrong=$1
  echo "$1" >&2
  return 2
}

# One value of a command's words, as JSON in REPLY and the number of words that it has taken in __wh_took: TEXT, -s TEXT,
# -n NUMBER, -j JSON, -S SIGNAL, and behind -- a TEXT. $1 is the command, $2 how many levels it may nest.
__wh_value() {
  local command=$1 levels=$2 shown=${4-}
  shift 2
  # One line.
  shown=${shown:0:80} shown=${shown//[[:cntrl:]]/ }
  __wh_took=2
  case ${1-} in
    -[snjS] | --) (($# >= 2)) || { __wh_misused "$command: $1 wants a value behind it"; return; } ;;&
    -s | --) workhall_json "$2" ;;
    -n)
      [[ $2 =~ $__wh_number ]] || { __wh_misused "$command: \"$shown\" is no number"; return; }
      __wh_in_range "$2" || { __wh_misused "$command: $shown is too large a number: they go to 1.79e308"; return; }
      REPLY=$2 ;;
    -j)
      # What came as an argument was read already, and may stand where it stood; but a peer with the binary encoding may have
      # sent a map that looks like bytes and is none, which could not be sent from here.
      local argument
      if ((levels > 62)) && [[ $2 != *[\$\\]* ]]; then
        for argument in ${WORKHALL_ARGS[@]+"${WORKHALL_ARGS[@]}"}; do
          if [[ $2 = "$argument" ]]; then REPLY=$2; return 0; fi
        done
      fi
      __wh_parse "$2" || { __wh_misused "$command: this is no JSON: $shown"; return; }
      __wh_sendable "$levels" || { __wh_misused "$command: this cannot be sent: $REPLY: $shown"; return; }
      __wh_raw 0 ;;
    -S)
      [[ $2 =~ ^[0-9a-f]{32}$ ]] || { __wh_misused "$command: this is no signal: $shown"; return; }
      REPLY="{\"\$signal\":\"$2\"}" ;;
    *) __wh_took=1; workhall_json "${1-}" ;;
  esac
}

# The words of a command as a JSON list, in REPLY. Behind `--` all are texts.
__wh_list() {
  local command=$1 list=() texts=''
  shift
  while (($#)); do
    if [[ $1 = -- && ! $texts ]]; then texts=1; shift; continue; fi
    if [[ $texts ]]; then workhall_json "$1"; __wh_took=1; else __wh_value "$command" "$__wh_levels" "$@" || return 2; fi
    list+=("$REPLY")
    shift "$__wh_took"
  done
  local IFS=,
  REPLY="[${list[*]-}]"
}

# workhall_list WORD…: the JSON list of these values, in REPLY.
workhall_list() { local - IFS=$' \t\n'; set +eu; __wh_list workhall_list "$@"; }

# ---- the connection -----------------------------------------------------------------------------------------------

# __wh_aside VARIABLE DESCRIPTOR: a copy of a descriptor that no program inherits which is started here, in the variable. Bash has no
# word for that, but keeps what it sets aside during a redirection close-on-exec, and a copy of such a descriptor is so too. Not of 0.
__wh_aside() {
  { __wh_take "$@" 0<&-; } 0<&"$2"
}

# With a copy of the descriptor set aside.
__wh_take() {
  local - entry number flags; set +f
  for entry in /proc/"$BASHPID"/fd/*; do
    number=${entry##*/}
    ((number >= 10 && number != $2)) && [[ $entry -ef /proc/$BASHPID/fd/$2 ]] || continue
    { read -r _ _ && read -r _ flags; } <"/proc/$BASHPID/fdinfo/$number"
    ((flags & 02000000)) || continue
    eval "exec {$1}<&$number"
    return
  done
  eval "exec {$1}<&$2"
}

__wh_connect() {
  [[ ${WORKHALL_FD-} =~ ^[0-9]{1,9}$ && ${WORKHALL_FD-0} -gt 2 && -S /proc/$BASHPID/fd/${WORKHALL_FD-} ]] || {
    echo "${0##*/} is a Workhall worker: a supervisor starts it at the first message to its name (WORKHALL_FD is" \
      "\`${WORKHALL_FD-}\`). Try \`workhall serve --workers DIR\` with the directory of this program, then" \
      "\`workhall call NAME METHOD\`" >&2
    return 2
  }
  __wh_aside __wh_conn "$WORKHALL_FD"
  eval "exec $WORKHALL_FD<&-"
  [[ ${WORKHALL_MARK_FD-} =~ ^[0-9]{1,9}$ ]] && eval "exec $WORKHALL_MARK_FD<&-"
  # A supervisor that is gone is an error of what is said to it, not the end of the task. Children have the usual signal.
  [[ $(trap -p PIPE) ]] || trap : PIPE
}

__wh_say() {
  [[ $__wh_gone ]] && return 4
  { printf '%s\n' "$1" >&"$__wh_conn"; } 2>/dev/null && return 0
  __wh_gone=1 __wh_ending=1
  return 4
}

# Reads one line, and takes it in. $1: seconds to wait, or nothing. 4: the supervisor is gone. 5: the time is up.
__wh_hear() {
  local LC_ALL=C line='' status=0
  [[ $__wh_gone ]] && return 4
  # shellcheck disable=SC2086 # none or two words
  IFS= read -r ${1:+-t "$1"} -n $((__wh_line_max + 1)) -u "$__wh_conn" line || status=$?
  line=$__wh_partial$line
  if ((status > 128)); then __wh_partial=$line; return 5; fi
  __wh_partial=''
  if ((status)); then __wh_gone=1 __wh_ending=1 __wh_queue=(); return 4; fi
  ((${#line} <= __wh_line_max)) || __wh_strange "a line of more than 16 MiB"
  [[ ! $line ]] || __wh_take_in "$line"
}

__wh_strange() {
  echo "${0##*/}: this is no supervisor that workhall.bash understands: $1" >&2
  exit 1
}

# What a line says. An answer for which somebody waits stays in __wh_t, with its place in __wh_answer.
__wh_take_in() {
  local kind body
  __wh_parse "$1" || __wh_strange "${1:0:80}"
  [[ ${__wh_t[0]} = ['{['] ]] || __wh_strange "${1:0:80}"
  [[ ${__wh_t[0]} = '{' && ${__wh_t[1]} != '}' ]] && workhall_text "${__wh_t[1]}" || return 0
  kind=$REPLY body=3
  case $kind in
    welcome)
      __wh_member $body worker && WORKHALL_WORKER=$REPLY
      __wh_member $body number && WORKHALL_NUMBER=$REPLY
      __wh_member $body generation && WORKHALL_GENERATION=$REPLY
      true ;;
    task)
      __wh_find $body id && [[ ${__wh_t[REPLY]} =~ ^[0-9]+$ ]] || __wh_strange "${1:0:80}"
      [[ $__wh_ending ]] || __wh_queue+=("$1") ;;
    kill) __wh_ending=1 __wh_queue=() ;;
    cancelled)
      if __wh_member $body id && [[ $REPLY = "$__wh_current" ]]; then __wh_cancelled=1; fi ;;
    receipt | outcome | error)
      if __wh_member $body ref && [[ $REPLY ]]; then
        if [[ $REPLY = "$__wh_awaited" ]]; then __wh_answer=$kind; fi
      elif [[ $kind = error ]]; then
        __wh_member $body detail
        __wh_strange "it did not understand: $REPLY"
      fi ;;
  esac
}

# __wh_ask KIND WHAT FIELDS [SECONDS]: asks, and waits for the receipt. WHAT is this for people. __wh_body is the word of the answer,
# __wh_at its token.
__wh_ask() {
  local __wh_awaited=$((++__wh_ref)) __wh_answer='' __wh_line='' __wh_wrong=''
  [[ $__wh_conn ]] || { echo "$1: this is no worker, or workhall_run was not called yet" >&2; return 2; }
  __wh_no_copy "$1" || return
  __wh_line "{\"$1\":{\"ref\":$__wh_awaited${3:+,$3}}}" "$2" || return
  __wh_say "$__wh_line" || { echo "the supervisor has gone: $2 was not sent, and nothing has happened" >&2; return 4; }
  __wh_await "$2 was not answered, and may or may not have been executed" "${4-}"
}

# The time in microseconds, in `now`: of bash before 5.0 in whole seconds.
__wh_now() {
  now=${EPOCHREALTIME-$SECONDS.000000}
  now=${now/[.,]/}
}

# Waits for the answer to what was asked last, at most $2 microseconds; with `local __wh_awaited` set. 1: it was not understood. 4: the
# supervisor has gone, and $1 is what that means.
__wh_await() {
  local until='' now status=0
  [[ ${2-} ]] && __wh_now && until=$((now + $2))
  __wh_answer=''
  while [[ ! $__wh_answer ]]; do
    if [[ $until ]]; then
      __wh_now
      now=$((until - now))
      ((now > 0)) || return 5
      printf -v now '%d.%06d' $((now / 1000000)) $((now % 1000000))
    fi
    __wh_hear ${until:+"$now"} || {
      status=$?
      ((status == 5)) && continue
      echo "the supervisor has gone: $1" >&2
      return "$status"
    }
  done
  if [[ $__wh_answer = error ]]; then
    __wh_member 3 detail
    echo "the supervisor did not understand: $REPLY" >&2
    return 1
  fi
  # The one key beside `ref`.
  local at=4 key
  while [[ ${__wh_t[at]} != '}' ]]; do
    workhall_text "${__wh_t[at]}" && key=$REPLY
    [[ $key = ref ]] || __wh_body=$key __wh_at=$((at + 2))
    at=${__wh_e[at + 2]}
    [[ ${__wh_t[at]} != , ]] || at=$((at + 1))
  done
}

# __wh_micros NAME SECONDS: seconds with decimals as microseconds, in REPLY, rounded up.
__wh_micros() {
  local fraction
  [[ $2 =~ ^([0-9]{1,9})(\.([0-9]*))?$ ]] || { echo "$1: a time is a number of seconds like 5 or 0.25, not \`$2\`" >&2; return 2; }
  fraction=${BASH_REMATCH[3]}000000
  REPLY=$((10#${BASH_REMATCH[1]}${fraction:0:6}))
  [[ ${fraction:6} != *[1-9]* ]] || REPLY=$((REPLY + 1))
}

# The same as milliseconds for the wire, rounded up: a time that is not zero does not become zero.
__wh_millis() {
  __wh_micros "$@" || return
  REPLY=$(((REPLY + 999) / 1000))
}

# Whether a worker is named by its number: `%7` as on the command line; all else is a name, with $2 all.
__wh_is_number() {
  [[ ! ${2-} && $1 =~ ^%([0-9]{1,19})$ ]]
}

# A worker as JSON.
__wh_address() {
  if __wh_is_number "$@"; then REPLY=${BASH_REMATCH[1]}; else workhall_json "$1"; fi
}

# The receipt that came, in WORKHALL_RECEIPT: `accepted`, `ignored REASON`, `killed N`; REPLY is the message's id. Says why on
# stderr and returns 3 if it was refused.
__wh_receipt() {
  local detail
  REPLY='' WORKHALL_RECEIPT=$__wh_body
  case $__wh_body in
    accepted) __wh_member "$__wh_at" message ;;
    ignored) __wh_member "$__wh_at" reason; WORKHALL_RECEIPT="ignored $REPLY" REPLY='' ;;
    killed) __wh_member "$__wh_at" discarded; WORKHALL_RECEIPT="killed $REPLY" ;;
    refused)
      __wh_member "$__wh_at" detail; detail=$REPLY
      __wh_member "$__wh_at" reason; WORKHALL_RECEIPT="refused $REPLY"
      echo "refused: $REPLY: $detail" >&2
      return 3 ;;
  esac
  return 0
}

# What came of a message that was waited for: 0 with its result as JSON in REPLY. 1: it failed. 6: it will not be executed.
__wh_outcome() {
  case $__wh_body in
    done) __wh_find "$__wh_at" result && __wh_raw "$REPLY" || REPLY=null ;;
    failed) __wh_member "$__wh_at" error; echo "$1 failed: $REPLY" >&2; return 1 ;;
    *) __wh_raw "$__wh_at"; echo "$1: $__wh_body: $REPLY" >&2; return 6 ;;
  esac
}

# ---- what a worker, or any script, may ask ------------------------------------------------------------------------

# workhall_call [--existing] [--expires SECONDS] [--in SECONDS] [--wait [--timeout SECONDS]] [--name] [--] WORKER [METHOD [VALUE…]]:
# posts a message. `%7` is the worker with number 7; with --name it is a name, and behind -- no option. A VALUE is a text; -n NUMBER, -j JSON,
# -S SIGNAL and -s TEXT say otherwise, behind -- all are texts: write that before what somebody else has sent. Sets WORKHALL_RECEIPT,
# and REPLY: the message's id, or with --wait the result as JSON. In a worker on its own connection, else by the command `workhall`.
workhall_call() {
  local - IFS=$' \t\n'; set +eu
  local worker method args what wait='' timeout='' fields='' cli=() name='' status=0
  WORKHALL_RECEIPT=''
  while (($#)); do
    case $1 in
      --existing) fields+=',"existing":true' cli+=(--existing) ;;
      --wait) wait=1 cli+=(--wait) ;;
      --name) name=1 ;;
      --expires | --in | --timeout)
        (($# >= 2)) || { echo "workhall_call: $1 wants seconds behind it" >&2; return 2; }
        __wh_millis "workhall_call $1" "$2" || return
        cli+=("$1" "${REPLY}ms")
        case $1 in
          --expires) fields+=",\"expires_ms\":$REPLY" ;;
          --in) fields+=",\"in_ms\":$REPLY" ;;
          --timeout) timeout=$((REPLY * 1000)) ;;
        esac
        shift ;;
      --) shift; break ;;
      -*) echo "workhall_call: there is no option $1" >&2; return 2 ;;
      *) break ;;
    esac
    shift
  done
  [[ ${1-} ]] || { echo 'workhall_call: which worker?' >&2; return 2; }
  worker=$1 method=${2-}
  shift $(($# < 2 ? $# : 2))
  __wh_list workhall_call "$@" || return
  args=$REPLY
  if [[ ! $__wh_conn ]]; then
    # What is no number is a name, and no pattern.
    __wh_is_number "$worker" "$name" || cli+=(--name)
    __wh_by_command call "${cli[@]}" --json --args "$args" -- "$worker" "$method"
    return
  fi
  __wh_address "$worker" "$name"
  fields="\"worker\":$REPLY$fields"
  workhall_json "$method"
  fields+=",\"method\":$REPLY,\"args\":$args${wait:+,\"wait\":true}"
  local __wh_awaited __wh_body __wh_at __wh_answer
  what="\`$method\` of $worker"
  __wh_ask call "$what" "$fields" "$timeout" || return
  __wh_awaited=$__wh_ref
  __wh_receipt || return
  if [[ $wait && $WORKHALL_RECEIPT = accepted ]]; then
    __wh_await "$what was accepted as message $REPLY, and may or may not have been executed" "$timeout" || return
    __wh_outcome "$what" || status=$?
  fi
  return "$status"
}

# By the command line: its JSON says the same.
__wh_by_command() {
  local out status=0 __wh_body __wh_at=3
  out=$(command workhall "$@") || status=$?
  WORKHALL_RECEIPT='' REPLY=''
  ((status == 0 || status == 3)) && __wh_parse "$out" && workhall_text "${__wh_t[1]}" || return "$status"
  __wh_body=$REPLY REPLY=''
  case $__wh_body in
    done) __wh_outcome ''; WORKHALL_RECEIPT=accepted ;;
    # Why was said already.
    *) __wh_receipt 2>/dev/null || true ;;
  esac
  return "$status"
}

# workhall_reply METHOD [VALUE…]: calls back the worker that has sent the message, by its number.
workhall_reply() {
  local - IFS=$' \t\n'; set +eu
  [[ ${WORKHALL_SENDER_NUMBER-} || $__wh_current ]] ||
    { echo 'workhall_reply: there is no message here that could be answered: this is no worker, or no method of one' >&2; return 2; }
  [[ ${WORKHALL_SENDER_NUMBER-} ]] || { echo 'the message was sent by a client, which cannot be called back' >&2; return 1; }
  workhall_call "%$WORKHALL_SENDER_NUMBER" "$@"
}

# workhall_kill [[--name] [--] WORKER]: kills one worker, `*` being no pattern; without one, in a method, this worker itself: the rest of the
# method still runs. Sets WORKHALL_RECEIPT. In a worker on its own connection, else by the command `workhall`.
workhall_kill() {
  local - IFS=$' \t\n'; set +eu
  local fields='' name='' cli=() __wh_body __wh_at
  WORKHALL_RECEIPT=''
  [[ ${1-} = --name ]] && { name=1; shift; }
  case ${1-} in
    --) shift; [[ ${1-} ]] || { echo 'workhall_kill: which worker?' >&2; return 2; } ;;
    -*) [[ $name ]] || { echo "workhall_kill: there is no option $1: behind \`--\` is a worker" >&2; return 2; } ;;
    '') [[ ! $name ]] || { echo 'workhall_kill: which worker?' >&2; return 2; } ;;
  esac
  if [[ ! $__wh_conn ]]; then
    [[ ${1-} ]] || { echo 'workhall_kill: which worker? Only a worker kills itself' >&2; return 2; }
    __wh_is_number "$1" "$name" || cli+=(--name)
    __wh_by_command kill "${cli[@]}" --json -- "$1"
    return
  fi
  if (($#)); then __wh_address "$1" "$name"; fields="\"worker\":$REPLY"; fi
  __wh_ask kill "the kill of ${1-this worker}" "$fields" && __wh_receipt
}

# workhall_ending: whether this worker was killed, or the supervisor is gone. A long method may look here.
workhall_ending() {
  local - IFS=$' \t\n'; set +eu
  __wh_look workhall_ending || return
  [[ $__wh_ending ]]
}

# workhall_cancelled: whether the message that is executed is not wanted any more.
workhall_cancelled() {
  local - IFS=$' \t\n'; set +eu
  __wh_look workhall_cancelled || return
  [[ $__wh_cancelled ]]
}

# What a copy of this shell reads is lost for the worker.
__wh_no_copy() {
  [[ $BASHPID = "$__wh_pid" ]] && return
  echo "$1: not in a subshell, like \`\$(…)\` or a pipe: what it hears is lost for the worker" >&2
  return 2
}

# Takes in what has come.
__wh_look() {
  local __wh_awaited='' __wh_answer=''
  [[ ! $__wh_conn ]] || __wh_no_copy "$1" || return
  while [[ $__wh_conn && ! $__wh_gone ]] && read -r -t 0 -u "$__wh_conn"; do __wh_hear 1 || return 0; done
  return 0
}

# ---- signals ------------------------------------------------------------------------------------------------------

__wh_signal_field() {
  [[ ${2-} =~ ^[0-9a-f]{32}$ ]] || { echo "$1: this is no signal: \`${2-}\`: it has 32 lower-case hexadecimal digits" >&2; return 2; }
  REPLY="\"signal\":\"$2\""
}

__wh_no_signal() {
  echo "there is no signal $1 (any more): the last who held it is gone" >&2
  return 6
}

# workhall_signal_new [DESCRIPTION [KEEP_SECONDS]]: makes a signal; its id in REPLY. Pass it in arguments as -S ID.
workhall_signal_new() {
  local - IFS=$' \t\n'; set +eu
  local fields='' __wh_body __wh_at
  if [[ ${1-} ]]; then workhall_json "$1"; fields="\"description\":$REPLY"; fi
  if [[ ${2-} ]]; then __wh_millis workhall_signal_new "$2" || return; fields+="${fields:+,}\"keep_ms\":$REPLY"; fi
  __wh_ask signal_new 'a new signal' "$fields" && __wh_receipt && __wh_member "$__wh_at" id
}

# workhall_signal_set ID KEY VALUE: writes a value, to be read after the trigger; one word is a text. 1: it was triggered already.
workhall_signal_set() {
  local - IFS=$' \t\n'; set +eu
  local fields __wh_body __wh_at
  __wh_signal_field workhall_signal_set "${1-}" || return
  (($# >= 3)) || { echo 'workhall_signal_set: ID KEY VALUE' >&2; return 2; }
  fields=$REPLY
  workhall_json "$2"; fields+=",\"key\":$REPLY"
  (($# != 3)) || set -- "$1" "$2" -- "$3"
  __wh_value workhall_signal_set "$__wh_signal_levels" "${@:3}" || return
  ((__wh_took == $# - 2)) || { __wh_misused "workhall_signal_set: ID, KEY and one VALUE, not $# words"; return; }
  __wh_ask signal_set "a value of signal $1" "$fields,\"value\":$REPLY" && __wh_receipt || return
  case $WORKHALL_RECEIPT in *no_signal) __wh_no_signal "$1" ;; ignored*) return 1 ;; esac
}

# workhall_signal_trigger ID: 0 if this was the first trigger, 1 if not.
workhall_signal_trigger() {
  local - IFS=$' \t\n'; set +eu
  local __wh_body __wh_at
  __wh_signal_field workhall_signal_trigger "${1-}" || return
  __wh_ask signal_trigger "the trigger of signal $1" "$REPLY" && __wh_receipt || return
  [[ $WORKHALL_RECEIPT != ignored* ]] || { __wh_no_signal "$1"; return; }
  __wh_member "$__wh_at" first && [[ $REPLY = true ]]
}

# workhall_signal_wait ID [SECONDS]: waits until it is triggered; its values as JSON in REPLY. 5: the time is up (0 polls). 1: the
# message that carried it has failed; 6: it will not be triggered.
workhall_signal_wait() {
  local - IFS=$' \t\n'; set +eu
  local fields __wh_awaited __wh_body __wh_at __wh_answer
  __wh_signal_field workhall_signal_wait "${1-}" || return
  fields=$REPLY
  if [[ ${2-} ]]; then __wh_millis workhall_signal_wait "$2" || return; fields+=",\"timeout_ms\":$REPLY"; fi
  __wh_ask signal_wait "the wait for signal $1" "$fields" && __wh_receipt || return
  [[ $WORKHALL_RECEIPT != ignored* ]] || { __wh_no_signal "$1"; return; }
  __wh_awaited=$__wh_ref
  __wh_await "whether signal $1 was triggered is not known" || return
  case $__wh_body in
    triggered) __wh_find "$__wh_at" values && __wh_raw "$REPLY" ;;
    timed_out) REPLY=''; return 5 ;;
    lost) echo "signal $1 was not triggered, and nobody is left who was to do it" >&2; return 6 ;;
    *) __wh_outcome "the message with signal $1" ;;
  esac
}

# ---- a worker -----------------------------------------------------------------------------------------------------

# workhall_result VALUE: what the method returns: one word, which is a text, or -n NUMBER, -j JSON, -S SIGNAL. Without it the method returns nothing. A value
# that cannot be sent fails the message, whatever the method does then, unless it gives another.
workhall_result() {
  local - IFS=$' \t\n'; set +eu
  # One word is a text, whatever it is.
  (($# != 1)) || set -- -- "$1"
  if ! __wh_value workhall_result "$__wh_result_levels" "$@"; then
    __wh_unsent=$__wh_wrong
    return 2
  fi
  ((__wh_took == $#)) || { __wh_misused "workhall_result: one value, not $# words"; __wh_unsent=$__wh_wrong; return 2; }
  __wh_unsent='' __wh_result=$REPLY
}

# workhall_fail TEXT: the method has failed, for this reason. Returns 1, so that it may be the last word of the method.
workhall_fail() {
  local IFS=' '
  __wh_error=$*
  return 1
}

# workhall_run [--json] METHOD…: executes tasks until the supervisor asks for the end or is gone. Each METHOD is a function of
# this name, or NAME=FUNCTION; behind it may stand how many arguments it takes: `disk/0-1`, `add/1`. A method gets its
# arguments as $1, $2 …: texts as they are, a signal as its id, null as nothing, all else as JSON; with --json all as JSON. They stand
# as JSON in the array WORKHALL_ARGS too. Methods run in this shell, so that its variables, functions and directory are the worker's state. Each begins with
# the options (but for -e, -E and -T), the IFS and the stdin, stdout and stderr that there were at workhall_run, and without a trap on ERR, DEBUG and
# RETURN, whatever the one before it has left: the loop stands on these. A status that is not 0 settles the message as failed, with what
# the method wrote last on stderr.
workhall_run() {
  # A method sees the variables of who calls it: from here on all of them are called __wh_ or WORKHALL_.
  local __wh_ifs=${IFS-$' \t\n'}
  local - IFS=$' \t\n'; set +eET
  local __wh_json='' __wh_awaited='' __wh_answer='' __wh_line='' __wh_stdin='' __wh_stdout='' __wh_options __wh_restore __wh_wrong='' __wh_on_pipe __wh_tee __wh_tail
  local -A __wh_functions=() __wh_least=() __wh_most=()
  __wh_writable || { echo "workhall_run: $__wh_wrong" >&2; return 2; }
  __wh_declare "$@" && __wh_connect || return
  __wh_pid=$BASHPID
  __wh_prepare
  __wh_say '{"ready":{"protocol":1,"window":1}}'
  # `until`, for when a function has made the shell execute nothing any more (`set -n`), all conditions hold: then this is over too.
  until [[ $__wh_ending ]]; do
    if ((${#__wh_queue[@]})); then
      __wh_line=${__wh_queue[0]}
      __wh_queue=("${__wh_queue[@]:1}")
      __wh_task "$__wh_line"
    else
      __wh_hear || true
    fi
  done
}

# Whether the functions here can have their variables. If not, why in __wh_wrong.
__wh_writable() {
  local __wh_name
  __wh_can_have "${__wh_names[@]}" && return
  for __wh_name in "${__wh_names[@]}"; do
    __wh_can_have "$__wh_name" || { __wh_wrong="the variable \`$__wh_name\` is readonly, and workhall.bash needs it: give yours another name"; return 1; }
  done
}

__wh_can_have() { local "$@"; } 2>/dev/null

# Which methods there are.
__wh_declare() {
  local word name
  [[ ${1-} = --json ]] && { __wh_json=1; shift; }
  [[ ${1-} != -- ]] || shift
  for word; do
    name=${word%%=*}
    if [[ $word =~ ^(.*)/([0-9]+)(-([0-9]*))?$ ]]; then
      word=${BASH_REMATCH[1]} name=${word%%=*}
      __wh_least[$name]=${BASH_REMATCH[2]} __wh_most[$name]=${BASH_REMATCH[4]-}
      [[ ${BASH_REMATCH[3]} ]] || __wh_most[$name]=${BASH_REMATCH[2]}
    fi
    declare -F -- "${word#*=}" >/dev/null || { echo "workhall_run: there is no function \`${word#*=}\`" >&2; return 2; }
    __wh_functions[$name]=${word#*=}
  done
}

# What the loop stands on, whatever methods do: descriptors, programs, options, traps.
__wh_prepare() {
  local descriptor
  # What a program is started with has all three.
  for descriptor in 0 1 2; do [[ -e /proc/$BASHPID/fd/$descriptor ]] || eval "exec $descriptor<>/dev/null"; done
  exec {descriptor}<&0
  __wh_aside __wh_stdin "$descriptor"
  exec {descriptor}<&-
  __wh_aside __wh_stdout 1
  __wh_aside __wh_stderr 2
  exec {descriptor}<> <(:)
  __wh_aside __wh_tails "$descriptor"
  exec {descriptor}<&-
  __wh_tee=$(type -P tee) && __wh_tail=$(type -P tail) || __wh_strange 'there is no tee, or no tail, in PATH'
  __wh_options=$SHELLOPTS:$BASHOPTS
  __wh_restore=$(set +o; shopt -p)
  __wh_on_pipe=$(trap -p PIPE)
}

# One task, from its line.
__wh_task() {
  local WORKHALL_ARGS=() WORKHALL_METHOD='' WORKHALL_MESSAGE='' WORKHALL_SENDER='' WORKHALL_SENDER_NUMBER=''
  local __wh_args=() __wh_result='' __wh_error='' __wh_unsent='' __wh_wrong='' __wh_status=0
  __wh_parse "$1"
  __wh_member 3 id && __wh_current=$REPLY WORKHALL_MESSAGE=$REPLY __wh_cancelled=''
  if __wh_read_task; then
    __wh_execute "${__wh_functions[$WORKHALL_METHOD]}" ${__wh_args[@]+"${__wh_args[@]}"}
  else
    __wh_status=1
  fi
  [[ ! $__wh_unsent || $__wh_error ]] || __wh_error=$__wh_unsent __wh_status=1
  if ((!__wh_status)) && [[ ! $__wh_error ]]; then
    __wh_line "{\"done\":{\"id\":$__wh_current${__wh_result:+,\"result\":$__wh_result}}}" 'the result' || __wh_error=$__wh_wrong
  fi
  if ((__wh_status)) || [[ $__wh_error ]]; then
    ((${#__wh_error} < __wh_line_max / 16)) || __wh_error=${__wh_error:0:__wh_error_bytes}…
    workhall_json "$__wh_error"
    __wh_line "{\"failed\":{\"id\":$__wh_current,\"error\":$REPLY}}"
  fi
  __wh_current=''
  __wh_say "$__wh_line" || true
}

# What is to be executed, from __wh_t. Fails if it cannot be, with the reason in __wh_error.
__wh_read_task() {
  local at name count
  __wh_find 3 method && [[ ${__wh_t[REPLY]} = '"'* ]] && __wh_plain "$REPLY" || REPLY=''
  WORKHALL_METHOD=$REPLY name=$REPLY
  if __wh_find 3 from && [[ ${__wh_t[REPLY]} = '{' ]]; then
    at=$REPLY
    __wh_member "$at" worker && WORKHALL_SENDER=$REPLY
    __wh_member "$at" number && WORKHALL_SENDER_NUMBER=$REPLY
  fi
  if [[ $name = ['@*'] || ! $name || ! ${__wh_functions[$name]+x} ]]; then
    __wh_methods
    __wh_error="there is no method \`$name\`: this worker has $REPLY"
    return 1
  fi
  __wh_find 3 args && [[ ${__wh_t[REPLY]} = '[' ]] || { __wh_error="the arguments of \`$name\` are no list"; return 1; }
  at=$((REPLY + 1))
  while [[ ${__wh_t[at]} != ']' ]]; do
    __wh_raw "$at"
    WORKHALL_ARGS+=("$REPLY")
    if [[ ! $__wh_json ]] && ! __wh_plain "$at"; then
      __wh_error="argument ${#WORKHALL_ARGS[@]} of \`$name\` holds a NUL, which bash cannot hold"
      return 1
    fi
    __wh_args+=("$REPLY")
    at=${__wh_e[at]}
    [[ ${__wh_t[at]} != , ]] || at=$((at + 1))
  done
  count=${#__wh_args[@]}
  if ((count < ${__wh_least[$name]-0} || count > ${__wh_most[$name]:-count})); then
    __wh_error="the arguments of \`$name\` do not fit: it takes ${__wh_least[$name]}"
    [[ ${__wh_most[$name]} = "${__wh_least[$name]}" ]] || __wh_error+=" to ${__wh_most[$name]:-any}"
    __wh_error+=", and $count came"
    return 1
  fi
}

# A line to be said, in __wh_line, unless it is longer than the protocol allows. $2 is what it is, for people.
__wh_line() {
  local LC_ALL=C
  ((${#1} <= __wh_line_max)) || { __wh_misused "$2 has ${#1} bytes as a message, and $__wh_line_max are the most"; return; }
  __wh_line=$1
}

# The methods there are, for people, in order.
__wh_methods() {
  local LC_ALL=C known=() name at
  for name in "${!__wh_functions[@]}"; do
    for ((at = ${#known[@]}; at > 0; at--)); do
      [[ ${known[at - 1]} > $name ]] || break
      known[at]=${known[at - 1]}
    done
    known[at]=$name
  done
  REPLY=''
  for name in ${known[@]+"${known[@]}"}; do REPLY+="${REPLY:+, }\`$name\`"; done
  REPLY=${REPLY:-none}
}

# Executes a function in this shell. What it writes on stderr goes on to the worker's own, and the last of it comes back here when
# all who hold it have closed it, or for a second nothing has come although all was read: what the function has left behind may hold it longer.
__wh_execute() {
  local __wh_pipe='' __wh_unread=''
  # Nobody's children are who read it, for a `wait` in the function waits for all children of this shell; and the function's stderr is the
  # one descriptor by which it is held.
  exec {__wh_pipe}> >(
    "$__wh_tee" >({ "$__wh_tail" -c "$__wh_error_bytes"; printf '\1%s\0' "$__wh_current"; } >&"$__wh_tails") \
      <&0 >&"$__wh_stderr" 2>&"$__wh_stderr" &
  )
  wait "$!"
  exec 2>&"$__wh_pipe" {__wh_pipe}>&-
  __wh_in_this_shell "$@"
  [[ $SHELLOPTS:$BASHOPTS = "$__wh_options" ]] || eval "$__wh_restore" 2>/dev/null || true
  # The other end of the pipe too, to see what was not read yet, unless the function has put something else in its place.
  if [[ -p /dev/fd/2 && ! /proc/$BASHPID/fd/2 -ef /proc/$BASHPID/fd/$__wh_stderr ]]; then exec {__wh_unread}</proc/"$BASHPID"/fd/2; fi
  exec <&"$__wh_stdin" >&"$__wh_stdout" 2>&"$__wh_stderr"
  eval "$__wh_on_pipe"
  __wh_writable || __wh_give_up
  __wh_last_words
  [[ ! $__wh_unread ]] || exec {__wh_unread}<&-
}

# Without its variables nothing of the library works any more, and no `readonly` can be taken back: the message that was executed has failed,
# and another process executes the next. The words are plain, so that they are JSON as they stand.
__wh_give_up() {
  echo "$WORKHALL_WORKER: $__wh_wrong" >&2
  __wh_say "{\"failed\":{\"id\":$__wh_current,\"error\":\"$__wh_wrong\"}}"
  exit 1
}

# The function itself. What it makes readonly of these variables is over with it: they are ours, and not those of the shell.
__wh_in_this_shell() {
  local IFS=$__wh_ifs REPLY='' WORKHALL_RECEIPT='' WORKHALL_ITEMS=() WORKHALL_KEYS=()
  # Without this `eval` a mistake in `$(( ))` would end not the function but all that is executed, and with it the loop.
  eval '"$@"' || __wh_status=$?
  # First what would hinder the rest.
  trap - DEBUG ERR RETURN
}

# Waits for the end of what was written on stderr, and takes the reason of a failure from it if the function has not said one.
__wh_last_words() {
  local LC_ALL=C piece text='' mark=$'\1'$__wh_current seconds=$__wh_patience status
  while :; do
    status=0
    IFS= read -r -d '' -t 1 -u "$__wh_tails" piece || status=$?
    # A NUL that was written ends a piece too; and what ends for an earlier message comes late.
    text+=$piece
    if ((status)); then
      # There is something to read also when all have closed it: then who reads it has only not come to it yet, which on a machine that
      # has much to do may take longer than a second. Else who holds it says nothing.
      ((--seconds > 0)) && [[ $__wh_unread ]] && read -r -t 0 -u "$__wh_unread" && continue
      break
    fi
    [[ $text != *"$mark" ]] || break
    [[ $text != *$'\1'+([0-9]) ]] || text=''
  done
  ((__wh_status)) && [[ ! $__wh_error ]] || return 0
  text=${text%"$mark"}
  # Of the first line only a part may be there.
  [[ ${#text} -lt $__wh_error_bytes || $text != *$'\n'*$'\n'* ]] || text=${text#*$'\n'}
  while [[ $text = *$'\n' ]]; do text=${text%$'\n'}; done
  __wh_error=${text:-"\`$WORKHALL_METHOD\` ended with status $__wh_status"}
}
