"""Starts MiniStack 1.5.33 with what it leaves out of ECS, for tests that run tasks: this is a double of AWS, made of private functions of
exactly that version, and no part of the product.

A task gets a session of its role, a network of its tenant's with the names that Cloud Map would have, volumes, an order of its containers
(dependsOn), a user, a read-only root, no capability, and is running once its health check says so. Images are pulled by digest from the
emulator's own registry.

A3_TASKS_ADDRESS is where tasks reach the emulator: 169.254.170.2, for the SDKs take credentials from no other place without TLS.
A3_TASKS_TEMPLATES answers a template as the emulator can make it.
A3_TASKS_HOSTS is a file in the form of /etc/hosts, by which this machine finds the names of tasks.
"""

import json
import os
import threading
import time
import urllib.request

import asked  # noqa: F401  (what policies are asked about)
from ministack.services import ecr, ecs, imds, secretsmanager, sts
from ministack.services.cloudformation import changesets, engine, handlers, provisioners

ADDRESS, HOSTS, PORT = os.environ["A3_TASKS_ADDRESS"], os.environ["A3_TASKS_HOSTS"], os.environ["GATEWAY_PORT"]
URI, TOKEN = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"


def place(family):
    """Whose network a task stands in and which component it is: of a tenant's set, or of the plane's own."""
    owner, _, component = family.partition("-")
    if owner == "plane":
        component = component.partition("-")[2]
    return owner.replace("_", "-"), component


def field(thing, name, otherwise=None):
    """A field in either spelling: what comes from a template begins with a capital."""
    return thing.get(name, thing.get(name[0].upper() + name[1:], otherwise))


# Credentials of tasks: the session that the endpoint hands out is one that STS knows.
sessions = {}
register_metadata, answer_metadata = ecs._register_metadata, imds.handle_request


def register(arn, cluster, definition, container, launch_type, env, host, ip):
    token = register_metadata(arn, cluster, definition, container, launch_type, env, host, ip)
    env["AWS_REGION"] = ecs.get_region()
    if definition.get("taskRoleArn"):
        sessions[env[URI].rsplit("/", 1)[1]] = (definition["taskRoleArn"], arn.rsplit("/", 1)[1], env[TOKEN])
    else:
        for name in (URI, TOKEN):
            env.pop(name, None)
    return token


async def credentials(method, path, headers, body, query):
    if not path.startswith("/v2/credentials/"):
        return await answer_metadata(method, path, headers, body, query)
    known = sessions.get(path.rsplit("/", 1)[1])
    if not known or headers.get("authorization") != known[2]:
        return 403, {"Content-Type": "text/plain"}, b"forbidden"
    role, name, _ = known
    account = role.split(":")[4]
    key, secret, token = imds._gen_session_access_key(), imds._gen_secret(), imds._gen_session_token()
    sts.register_session(key, {
        "Arn": f"arn:aws:sts::{account}:assumed-role/{role.rsplit('/', 1)[1]}/{name}", "UserId": f"{sts._role_id(role)}:{name}", "SecretAccessKey": secret,
        "SessionToken": token, "Expiration": time.time() + 3600, "AccountId": account, "PrincipalType": "AssumedRole"})
    text = {"Code": "Success", "AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": imds._future(3600), "RoleArn": role}
    return 200, {"Content-Type": "application/json"}, json.dumps(text).encode()


ecs._register_metadata, imds.handle_request = register, credentials

# Names of tasks.
names, writing = {}, threading.Lock()


def write_hosts():
    with writing:
        text = "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for ip, name in sorted(names.values()))
        with open(HOSTS, "w") as f:  # in its place, for it is mounted
            f.write(text)


def forget(container):
    if names.pop(container, None):
        write_hosts()


remove_container = ecs._remove_docker_container


def remove(client, container):
    forget(getattr(container, "id", container))
    remove_container(client, container)


ecs._remove_docker_container = remove

# Registry and gateway stand in every network, where security groups would let each pass to what it serves.
PLANE, PLANES_OWN = "plane", "a3.plane"

# Containers as a task definition says.
build_kwargs = ecs._build_run_kwargs
networks = threading.Lock()


def kwargs_of(cdef, td, env, ports, network, host_mode, task_id, arn, ip, cluster):
    out = build_kwargs(cdef, td, env, ports, network, host_mode, task_id, arn, ip, cluster)
    sources = {}
    for volume in td.get("volumes", []):
        sources[field(volume, "name")] = field(field(volume, "host") or {}, "sourcePath") or f"{task_id}-{field(volume, 'name')}"
    out["volumes"] = [f"{sources[field(m, 'sourceVolume')]}:{field(m, 'containerPath')}:{'ro' if field(m, 'readOnly') else 'rw'}" for m in cdef.get("mountPoints", [])]
    network, component = place(td["family"])
    out.update(user=cdef.get("user"), read_only=bool(cdef.get("readonlyRootFilesystem")), cap_drop=["ALL"], security_opt=["no-new-privileges"],
               extra_hosts={"host.docker.internal": ADDRESS}, network=network)
    out.pop("platform", None)
    out["_task"], out["_name"] = task_id, f"{component}.{network}.{cluster.rsplit('/', 1)[1]}.internal"
    return out


def run(client, cdef, kwargs, **_):
    kwargs = dict(kwargs)
    task, name = kwargs.pop("_task"), kwargs.pop("_name")
    for before in cdef.get("dependsOn", []):
        after(client, f"ministack-ecs-{task[:8]}-{field(before, 'containerName')}")
    host, _, rest = cdef["image"].partition("/")
    image = f"127.0.0.1:{PORT}/{rest}"
    with networks:
        if not client.networks.list(names=[f"^{kwargs['network']}$"]):
            made = client.networks.create(kwargs["network"], driver="bridge")
            for serving in client.containers.list(filters={"label": PLANES_OWN}):
                made.connect(serving, aliases=[serving.labels[PLANES_OWN]])
        try:
            client.images.get(image)
        except Exception:
            client.api.pull(image)
    serves = bool(cdef.get("portMappings"))
    if serves and kwargs["network"] == PLANE:
        kwargs["labels"] = {**(kwargs.get("labels") or {}), PLANES_OWN: name}
    container = client.containers.run(image, networking_config={kwargs["network"]: client.api.create_endpoint_config(aliases=[name] if serves else [])}, **kwargs)
    if serves and kwargs["network"] == PLANE:
        with networks:
            for network in client.networks.list(filters={"driver": "bridge"}):
                if network.name not in (PLANE, "bridge"):
                    network.connect(container, aliases=[name])
    if not cdef.get("portMappings"):
        return container
    try:
        healthy(container, cdef.get("healthCheck"))
        container.reload()
        names[container.id] = (container.attrs["NetworkSettings"]["Networks"][kwargs["network"]]["IPAddress"], name)
        write_hosts()
    except Exception:
        remove(client, container)
        raise
    return container


def after(client, name):
    """Returns when the container of a task ended well."""
    container = client.containers.get(name)
    if code := container.wait(timeout=60)["StatusCode"]:
        raise RuntimeError(f"{name} ended with {code}: {container.logs(tail=3)}")


def healthy(container, check):
    """Returns when the container's check says so, or it ended, which is told by who watches it."""
    if not check:
        return
    began, interval = time.time(), float(field(check, "interval", 30))
    until = began + float(field(check, "startPeriod", 0)) + interval * int(field(check, "retries", 3))
    while time.time() < until:
        container.reload()
        if container.status == "exited":
            return
        try:
            if container.exec_run(field(check, "command")[1:]).exit_code == 0:
                return
        except Exception:
            pass
        # ECS asks each interval. Here one that is up soon is seen soon, and many that start at once don't ask each other out of the machine.
        time.sleep(min(interval, max(0.5, (time.time() - began) / 4)))
    raise RuntimeError(f"{container.name} is unhealthy: {container.logs(tail=5)}")


ecs._build_run_kwargs, ecs._run_docker_container = kwargs_of, run

# A task whose container has ended already is not healthy, though who watches it hasn't said so yet, as on a busy machine.
record_healthy = ecs._record_service_task_healthy


def healthy_yet(service, task):
    for container in ecs._get_docker().containers.list(all=True, filters={"name": f"ministack-ecs-{task['taskArn'].rsplit('/', 1)[1][:8]}-"}):
        if container.status == "exited" and container.attrs["State"]["ExitCode"]:
            return
    record_healthy(service, task)


ecs._record_service_task_healthy = healthy_yet


# Task definitions of templates, spelled as ECS spells them.
create_definition, camel = provisioners._ecs_task_def_create, provisioners._pascal_to_camel


def definition(logical_id, props, stack):
    arn, attributes = create_definition(logical_id, props, stack)
    made = ecs._task_defs[arn.rsplit("/", 1)[1]]
    made["volumes"], made["runtimePlatform"] = camel(props.get("Volumes", [])), camel(props.get("RuntimePlatform", {}))
    return arn, attributes


provisioners._normalize_container_defs = camel
provisioners._ecs_task_def_create = definition
provisioners._RESOURCE_HANDLERS["AWS::ECS::TaskDefinition"]["create"] = definition


# Secrets of tasks: a template's reference to one is its name here, and its ARN at AWS.
def secrets_of(cdef):
    out = {}
    for secret in cdef.get("secrets", []):
        name, key = secret["valueFrom"].removesuffix("::").rsplit(":", 1)
        text = secretsmanager.resolve_secret_string(name)
        if text is None or key not in json.loads(text):
            raise ecs._SecretResolutionError(f"secret {name} has no {key}")
        out[secret["name"]] = json.loads(text)[key]
    return out


ecs._resolve_container_secrets = secrets_of


# The registry of images is the emulator itself.
def login(_):
    status, headers, body = authorization({})
    text = json.loads(body)
    text["authorizationData"][0]["proxyEndpoint"] = f"http://127.0.0.1:{PORT}"
    return status, headers, json.dumps(text).encode()


authorization = ecr._get_authorization_token
for table in vars(ecr).values():
    if isinstance(table, dict) and table.get("GetAuthorizationToken") is authorization:
        table["GetAuthorizationToken"] = login
ecr._get_authorization_token = login

# Templates without what the emulator can't make, as the test says.
parse = engine._parse_template


def template(body):
    with urllib.request.urlopen(urllib.request.Request(os.environ["A3_TASKS_TEMPLATES"], data=body.encode())) as answer:
        return parse(answer.read().decode())


for module in (engine, changesets, handlers, provisioners):
    if hasattr(module, "_parse_template"):
        module._parse_template = template

from ministack.app import main  # noqa: E402  (after what is put in place of its own)

main()
