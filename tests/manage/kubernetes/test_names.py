import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.errors import UsageError
from qctl.manage.kubernetes.names import WorkloadName, parse_name


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("deployment/emails", "kubernetes:deployment/emails"),
        ("deploy/emails", "kubernetes:deployment/emails"),
        ("shop/Deployments/emails", "kubernetes:shop/deployment/emails"),
        ("shop/sts/images-2", "kubernetes:shop/statefulset/images-2"),
        ("statefulset/a.b", "kubernetes:statefulset/a.b"),
    ],
)
def test_the_normal_form(text: str, target: str) -> None:
    name = parse_name(text)
    assert name.target == target
    assert parse_name(target.removeprefix("kubernetes:")) == name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("emails", "the kind is missing"),
        ("shop/emails", "'shop'"),
        ("ds/emails", "'ds'"),
        ("shop/deploy/emails/x", ""),
        ("deploy/", "''"),
        ("/deploy/emails", "''"),
        ("deploy/--all", "'--all'"),
        ("-n/deploy/emails", "'-n'"),
    ],
)
def test_what_names_no_workload(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_name(text)
    assert why in caught.value.why
    assert caught.value.hint


@given(st.text(alphabet="abz0-./ \nA=", max_size=20))
def test_no_name_becomes_an_option_or_a_second_word(text: str) -> None:
    try:
        name = parse_name(f"shop/deploy/{text}")
    except UsageError:
        return
    assert isinstance(name, WorkloadName)
    assert not name.name.startswith("-")
    assert not set(name.name) & set(" \n/=A")
