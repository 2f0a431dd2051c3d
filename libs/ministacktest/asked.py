"""Starts MiniStack 1.5.33 so that it asks policies about what AWS asks them about: services and definitions of tasks by their names, roles
with their path, keys and snapshots with their tags; so that change sets say of what fleet's templates have by which properties another takes its place; and so
that RDS has the backups that it makes of a server by itself, which stay where somebody says so when the server is deleted. Made of private functions of
exactly that version, as tasks.py is.
"""

import json

from ministack.core import iam_actions
from ministack.services import iam, kms, rds
from ministack.services.cloudformation import stacks

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
    if service == "rds" and (snapshot := rds._snapshots.get(iam_actions._query_param(params, "DBSnapshotIdentifier"))):
        return snapshot["DBSnapshotArn"]
    return arn_of(service, method, path, headers, body, params, region, account)


def tags(service, action, body, params):
    out = tags_of(service, action, body, params)
    if service == "kms":
        key = kms._keys.get(json.loads(body or b"{}").get("KeyId", "").rsplit("/", 1)[-1])
        for tag in (key or {}).get("Tags", []):
            out[f"aws:resourcetag/{tag['TagKey'].lower()}"] = tag["TagValue"]
    if service == "rds":
        snapshot = rds._snapshots.get(iam_actions._query_param(params, "DBSnapshotIdentifier"))
        for tag in (snapshot or {}).get("TagList", []):
            out[f"aws:resourcetag/{tag['Key'].lower()}"] = tag["Value"]
    return out


iam_actions.extract_resource_arn, iam_actions.request_tag_context = resource, tags

# createOnlyProperties of CloudFormation's schemas, as cfn-lint 1.58.0 has them. Of types that it doesn't know the emulator says that each change may replace.
replacing = {
    "AWS::KMS::Key": (), "AWS::Logs::LogGroup": ("LogGroupName",), "AWS::SecretsManager::Secret": ("Name",), "AWS::SecretsManager::ResourcePolicy": ("SecretId",),
    "AWS::ECS::Service": ("Cluster", "Role", "SchedulingStrategy", "ServiceName", "LaunchType"),
    "AWS::ECS::TaskDefinition": ("Family", "ContainerDefinitions", "Cpu", "ExecutionRoleArn", "Memory", "NetworkMode", "RequiresCompatibilities", "RuntimePlatform",
                                 "TaskRoleArn", "Volumes"),
    "AWS::SQS::QueuePolicy": (), "AWS::S3::Bucket": ("BucketName",), "AWS::S3::BucketPolicy": ("Bucket",), "AWS::EC2::SecurityGroup": ("GroupDescription", "GroupName", "VpcId"),
    "AWS::ServiceDiscovery::Service": ("HealthCheckCustomConfig", "Name", "Type", "NamespaceId"), "AWS::ServiceDiscovery::PrivateDnsNamespace": ("Vpc", "Name"),
    "AWS::CloudWatch::Alarm": ("AlarmName",),
}
recreation_of = stacks._property_recreation


def recreation(kind, name):
    if kind not in replacing:
        return recreation_of(kind, name)
    return "Always" if name in replacing[kind] else "Never"


stacks._property_recreation = recreation

retained, delete_server = {}, rds._ACTION_MAP["DeleteDBInstance"]


def delete(params):
    server = dict(rds._instances.get(rds._p(params, "DBInstanceIdentifier")) or {})
    out = delete_server(params)
    if out[0] == 200 and rds._p(params, "DeleteAutomatedBackups") == "false":
        retained[server["DbiResourceId"]] = server
    return out


def backups(params):
    of = rds._p(params, "DBInstanceIdentifier")
    kept = [(s, "active") for s in rds._instances.values() if int(s.get("BackupRetentionPeriod") or 0)] + [(s, "retained") for s in retained.values()]
    members = "".join(f"<DBInstanceAutomatedBackup><DBInstanceIdentifier>{s['DBInstanceIdentifier']}</DBInstanceIdentifier><DbiResourceId>{s['DbiResourceId']}</DbiResourceId>"
                      f"<Status>{status}</Status></DBInstanceAutomatedBackup>" for s, status in kept if not of or s["DBInstanceIdentifier"] == of)
    name = "DescribeDBInstanceAutomatedBackups"
    return rds._xml(200, name + "Response", f"<{name}Result><DBInstanceAutomatedBackups>{members}</DBInstanceAutomatedBackups></{name}Result>")


rds._ACTION_MAP.update(DeleteDBInstance=delete, DescribeDBInstanceAutomatedBackups=backups)

if __name__ == "__main__":
    from ministack.app import main

    main()
