"""Starts MiniStack 1.5.33 so that it asks policies about what AWS asks them about: services and definitions of tasks by their names, roles
with their path, keys with their tags. Made of private functions of exactly that version, as tasks.py is.
"""

import json

from ministack.core import iam_actions
from ministack.services import iam, kms

arn_of, tags_of = iam_actions.extract_resource_arn, iam_actions.request_tag_context


def resource(service, method, path, headers, body, params, region, account):
    if service == "ecs":
        asked = json.loads(body or b"{}")
        cluster = (asked.get("cluster") or "default").rsplit("/", 1)[-1]
        name = asked.get("service") or asked.get("serviceName") or next(iter(asked.get("services", [])), "")
        if name:
            return f"arn:aws:ecs:{region}:{account}:service/{cluster}/{name.rsplit('/', 1)[-1]}"
        if definition := asked.get("taskDefinition") or next(iter(asked.get("taskDefinitions", [])), ""):
            return definition if definition.startswith("arn:") else f"arn:aws:ecs:{region}:{account}:task-definition/{definition}"
        return "*"
    if service == "iam" and (role := iam._roles.get(iam_actions._query_param(params, "RoleName"))):
        return role["Arn"]
    return arn_of(service, method, path, headers, body, params, region, account)


def tags(service, action, body, params):
    out = tags_of(service, action, body, params)
    if service == "kms":
        key = kms._keys.get(json.loads(body or b"{}").get("KeyId", "").rsplit("/", 1)[-1])
        for tag in (key or {}).get("Tags", []):
            out[f"aws:resourcetag/{tag['TagKey'].lower()}"] = tag["TagValue"]
    return out


iam_actions.extract_resource_arn, iam_actions.request_tag_context = resource, tags

if __name__ == "__main__":
    from ministack.app import main

    main()
