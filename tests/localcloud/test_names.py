import pytest

from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.names import check_host_name, check_name, numbered


def test_numbered_as_ecs_numbers_them() -> None:
    assert numbered("web", 2, False, "InstanceNameExceed") == ["web", "web"]
    assert numbered("web", 2, True, "InstanceNameExceed") == ["web001", "web002"]
    assert numbered("web", 1, True, "InstanceNameExceed") == ["web"]
    assert numbered("", 2, True, "InstanceNameExceed") == ["", ""]
    assert numbered("web-[7,3]-a", 2, True, "InstanceNameExceed") == ["web-007-a", "web-008-a"]
    assert numbered("web[,]", 2, False, "InstanceNameExceed") == ["web000000", "web000001"]
    # Too few digits for the last one: as many as there may be.
    assert numbered("w[99,2]", 2, False, "InstanceNameExceed") == ["w000099", "w000100"]
    with pytest.raises(ApiError, match=r"InvalidParams\.HostnameExceed"):
        numbered("h" * 62, 2, True, "HostnameExceed")


@pytest.mark.parametrize("name", ["ab", "Web_1.2:3-4", "Ünal", "a" * 128])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["a", "1a", "-a", "a b", "a" * 129, "http://a"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ApiError, match=r"InvalidInstanceName\.Malformed"):
        check_name(name)


@pytest.mark.parametrize("name", ["-a", "a-", ".a", "a.", "a..b", "a--b", "a_b", "a", "a" * 65])
def test_what_is_no_host_name(name: str) -> None:
    check_host_name("web-1.example")
    with pytest.raises(ApiError, match=r"InvalidHostName\.Malformed"):
        check_host_name(name)
