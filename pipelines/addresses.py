"""Addresses for people's eyes: without the secrets that some of them hold."""

import re

PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):[^\s/]*@")
TOKEN = re.compile(r"(?<=http://|ttps://)[^\s/:@]+@")
QUERY = re.compile(r"(?i)([?&]\w*(?:password|token|secret)=)[^&\s]+")


def without_secrets(text: str) -> str:
    """Whatever stands in a URL as a password or a token is three stars."""
    text = PASSWORD.sub(r"\1:***@", text)
    return QUERY.sub(r"\1***", TOKEN.sub("***@", text))


def without_login(address: str) -> str:
    """An address that anybody may follow."""
    return re.sub(r"(?<=://)[^\s/]*@", "", address, count=1)
