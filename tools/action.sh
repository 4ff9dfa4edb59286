#!/usr/bin/env bash
# The step of action.yml: `mobiledeploy check` with the action's inputs, from CHECK_* variables.
set -uo pipefail
shopt -s nullglob

argv=(--github)
# An input that is empty leaves the command's own default.
for name in baseline data task margin float-margin floor max-flips on-inconclusive runtime \
  input-range mean std channels labels junit; do
  variable="CHECK_${name^^}"
  variable="${variable//-/_}"
  value="${!variable:-}"
  # With an equals sign, for a range may begin with a minus.
  [[ -z "$value" ]] || argv+=("--$name=$value")
done
[[ "${CHECK_NO_LABELS:-false}" != true ]] || argv+=(--no-labels)

# The report goes to tools/comment, and the log shows the annotations; else it shows the table.
exec 3>&1
if [[ "${CHECK_COMMENT:-false}" == true ]]; then
  mkdir -p "${RUNNER_TEMP:?}/mobiledeploy-check"
  exec 3>"$RUNNER_TEMP/mobiledeploy-check/report.json"
  argv+=(--json)
fi

# Unquoted on purpose: patterns become files, and `check` leaves their records out.
artifacts=(${CHECK_ARTIFACTS:?no artifacts were named})
if ((${#artifacts[@]} == 0)); then
  echo "::error title=mobiledeploy check::no file fits $CHECK_ARTIFACTS" >&2
  code=2
else
  code=0
  python -P -m mobiledeploy check "${argv[@]}" -- "${artifacts[@]}" >&3 || code=$?
fi
echo "exit-code=$code" >>"${GITHUB_OUTPUT:-/dev/null}"
exit "$code"
