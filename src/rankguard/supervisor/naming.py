"""Who is who in a watched tree: the rules of `diagnosis/roles.py` and the user's, as the launcher wants them."""

from collections.abc import Mapping

from rankguard.diagnosis.roles import RULES, VARIABLES, Role, name_of, role_of, user_rule
from rankguard.jobspec import WatchPlan
from rankguard.launchers.treewatch import Above
from rankguard.launchers.watched import Naming


def naming(plan: WatchPlan) -> Naming:
    """The rules of one watch."""
    left = (
        rule.replace(name=f"--leave-pattern {rule.pattern}", ranklike=False)
        for rule in map(user_rule, plan.leave_patterns)
    )
    rules = (*left, *map(user_rule, plan.rank_patterns), *RULES)
    reported = plan.on_failure == "report"

    def recognise(title: str, env: Mapping[str, str], above: Above) -> Role:
        role = role_of(title, rules, env, above)
        return role.replace(ranklike=False) if reported else role

    return Naming(recognise=recognise, name_of=name_of, variables=VARIABLES)
