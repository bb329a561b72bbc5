"""How calls of Kafka's clients fail: what is worth trying again, and what no broker grants.

A right that is missing is not granted because it was asked for again: somebody has to mend it.
"""

from typing import Final

from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
    for_code,
)

from engine.errors import FailedDependency, SettingsRefused

FAILURES: Final = (KafkaError, OSError, TimeoutError)
"""What a call on one of the library's clients raises when it fails, refusals among them."""

REFUSALS: Final = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)


def failure(error: Exception, bootstrap: str, what: str) -> FailedDependency | SettingsRefused:
    """Return what a failed call is: worth trying again, or refused until somebody mends it."""
    if isinstance(error, REFUSALS):
        return refused(bootstrap, repr(error))
    return FailedDependency(f"{what}: {error!r}")


def refuse_code(code: int, bootstrap: str, what: str) -> None:
    """Raise ``SettingsRefused`` where a broker's error code says that we may not."""
    if issubclass(for_code(code), REFUSALS):
        raise refused(bootstrap, f"{for_code(code).__name__}, asked for {what}")


def refused(bootstrap: str, why: str) -> SettingsRefused:
    """Return the fault of brokers that do not let us in, or not do what we must."""
    return SettingsRefused(
        f"log.bootstrap: the brokers at {bootstrap} refuse this client ({why}): grant it Describe,"
        " DescribeConfigs, Read and Write on the topics `repricer.*`, and Create, Describe and"
        " IdempotentWrite on the cluster; or name other brokers"
    )
