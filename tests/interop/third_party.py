"""A TURN client with third-party authorization (RFC 7635) and the authorization server that it gets its tokens from, written from the
RFC by hand: the standard library, and AES-GCM of the `cryptography` package. Arguments: port, server name, key id, key in base64.

Says what the server answered, a line a step; the test reads the lines."""

import base64, hashlib, hmac, os, socket, struct, sys, time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

COOKIE = 0x2112A442
PORT, SERVER_NAME, KID, KEY = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3].encode(), base64.b64decode(sys.argv[4])
ALLOCATE, REFRESH, CREATE_PERMISSION = 3, 4, 8
ERROR_CODE, USERNAME, INTEGRITY, LIFETIME, PEER, REALM, NONCE = 0x09, 0x06, 0x08, 0x0D, 0x12, 0x14, 0x15
REQUESTED_TRANSPORT, ACCESS_TOKEN, THIRD_PARTY_AUTHORIZATION, UNKNOWN = 0x19, 0x1B, 0x802E, 0x0A

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(10)
sock.connect(("127.0.0.1", PORT))
realm = nonce = b""


def token(server_name=SERVER_NAME, key=KEY, made=None, lifetime=600):
    """What an authorization server gives out: the token, and the session key for the client."""
    session = os.urandom(20)
    stamp = int((time.time() if made is None else made) * 65536) & ~0xFFFF
    block = struct.pack("!H", len(session)) + session + struct.pack("!QI", stamp, lifetime)
    iv = os.urandom(12)
    return struct.pack("!H", 12) + iv + AESGCM(key).encrypt(iv, block, server_name), session


def request(method, attributes, session=None, kid=KID):
    """Sends a request, signed if there is a session key; code (0 for success) and attributes of the answer."""
    transaction = os.urandom(12)
    if session is not None:
        attributes = attributes + [(USERNAME, kid), (REALM, realm), (NONCE, nonce)]
    body = b"".join(struct.pack("!HH", t, len(v)) + v + b"\0" * (-len(v) % 4) for t, v in attributes)

    def header(length):
        return struct.pack("!HHI", method, length, COOKIE) + transaction

    if session is not None:
        mac = hmac.new(session, header(len(body) + 24) + body, hashlib.sha1).digest()
        body += struct.pack("!HH", INTEGRITY, 20) + mac
    sock.send(header(len(body)) + body)
    answer = sock.recv(2048)
    assert answer[8:20] == transaction
    found, at = {}, 20
    while at < len(answer):
        kind, length = struct.unpack("!HH", answer[at:at + 4])
        if kind == INTEGRITY and session is not None:
            covered = answer[:2] + struct.pack("!H", at + 24 - 20) + answer[4:at]
            assert hmac.compare_digest(answer[at + 4:at + 24], hmac.new(session, covered, hashlib.sha1).digest()), "the answer's MAC"
        found[kind] = answer[at + 4:at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    code = 0
    if ERROR_CODE in found:
        code = found[ERROR_CODE][2] * 100 + found[ERROR_CODE][3]
    else:
        assert session is None or INTEGRITY in found, "a response with a token must be signed"
    return code, found


def say(step, code, *more):
    print(step, code, *more, flush=True)


UDP = (REQUESTED_TRANSPORT, bytes([17, 0, 0, 0]))
peer = struct.pack("!BBH", 0, 1, 4000 ^ (COOKIE >> 16)) + struct.pack("!I", 0x7F000001 ^ COOKIE)

code, found = request(ALLOCATE, [UDP])
realm, nonce = found[REALM], found[NONCE]
say("challenge", code, found.get(THIRD_PARTY_AUTHORIZATION, b"-").decode())

if KID == b"none":
    access, session = token()
    code, found = request(ALLOCATE, [UDP, (ACCESS_TOKEN, access)], session)
    say("unexpected", code, found.get(UNKNOWN, b"").hex())
    sys.exit()

for step, (access, session), kid in [
    ("other-server", token(server_name=b"elsewhere.example"), KID),
    ("other-key", token(key=bytes(32)), KID),
    ("unknown-key", token(), b"nobody"),
    ("expired", token(made=time.time() - 700), KID),
    ("not-a-token", (b"\xff\xff" + bytes(60), b"x" * 20), KID),
    ("other-session", (token()[0], b"x" * 20), KID),
]:
    code, _ = request(ALLOCATE, [UDP, (ACCESS_TOKEN, access)], session, kid)
    say(step, code)

access, session = token(lifetime=120)
code, found = request(ALLOCATE, [UDP, (ACCESS_TOKEN, access), (LIFETIME, struct.pack("!I", 600))], session)
say("allocate", code, struct.unpack("!I", found[LIFETIME])[0] in range(115, 121))
# RFC 7635 section 9: only Allocate and Refresh have the token.
say("permission", request(CREATE_PERMISSION, [(PEER, peer)], session)[0])
say("refresh", request(REFRESH, [], session)[0])
later, new_session = token(lifetime=3000)
code, found = request(REFRESH, [(ACCESS_TOKEN, later)], new_session)
say("new-token", code, struct.unpack("!I", found[LIFETIME])[0])
say("by-new-key", request(CREATE_PERMISSION, [(PEER, peer)], new_session)[0])
say("by-old-key", request(CREATE_PERMISSION, [(PEER, peer)], session)[0])
say("end", request(REFRESH, [(LIFETIME, bytes(4))], new_session)[0])
