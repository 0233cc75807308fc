"""What a back end does with Twilio's own package, pointed at another URL.

Usage: twilio_client.py BASE_URL SID TOKEN [TTL]; prints the token that it gets, or the error, as JSON.
"""

import json
import sys

from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client

base_url, sid, auth_token, *ttl = sys.argv[1:]
client = Client(sid, auth_token)
client.api.base_url = base_url
try:
    token = client.tokens.create(**({"ttl": int(ttl[0])} if ttl else {}))
except TwilioRestException as error:
    print(json.dumps({"status": error.status, "code": error.code, "message": error.msg}))
else:
    print(
        json.dumps(
            {
                "account_sid": token.account_sid,
                "username": token.username,
                "password": token.password,
                "ttl": token.ttl,
                "date_created": token.date_created.timestamp(),
                "ice_servers": token.ice_servers,
            }
        )
    )
