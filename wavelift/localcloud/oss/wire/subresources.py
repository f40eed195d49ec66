"""The query parameters that are part of what a request is about, and the headers that ask for what is not here.

Signature 1 covers these parameters and no others.
"""


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What this cloud does something with.
HANDLED = names("""
    acl append bucketInfo continuation-token delete lifecycle location objectMeta partNumber position
    response-cache-control response-content-disposition response-content-encoding response-content-language
    response-content-type response-expires security-token sequential stat tagging uploadId uploads
""")

# What the real service does something with and this cloud refuses.
REFUSED = names("""
    accessPoint accessPointPolicy asyncFetch bucketArchiveDirectRead callback callback-var cloudboxes cname comp cors
    encryption endTime group httpsConfig img inventory inventoryId link live logging metaQuery objectInfo policy
    publicAccessBlock qos qosInfo qosRequester redundancyTransition referer regionList replication
    replicationLocation replicationProgress requestPayment requesterQosInfo resourceGroup resourcePool
    resourcePoolBuckets resourcePoolInfo restore startTime status style styleName symlink transferAcceleration
    versionId versioning versions vod website worm wormExtend wormId x-oss-async-process x-oss-process
    x-oss-redundancy-transition-taskid x-oss-target-redundancy-type x-oss-write-get-object-response
""")

# What changes nothing here.
IGNORED = names("""
    x-oss-ac-forward-allow x-oss-ac-source-ip x-oss-ac-subnet-mask x-oss-ac-vpc-id x-oss-access-point-name
    x-oss-request-payer x-oss-traffic-limit
""")

# Beginnings of headers, which a URL may carry as parameters. Who asks for encryption must not believe to have it.
REFUSED_HEADERS = (
    "x-amz-object-lock-",
    "x-amz-server-side-encryption",
    "x-amz-website-redirect-location",
    "x-oss-callback",
    "x-oss-object-worm-",
    "x-oss-server-side-",
)

SUBRESOURCES = HANDLED | REFUSED | IGNORED
