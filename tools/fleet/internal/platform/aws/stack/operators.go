package stack

import (
	"strings"

	"github.com/awslabs/goformation/v7/cloudformation/ecr"
	"github.com/awslabs/goformation/v7/cloudformation/iam"

	"a3os.app/deploy/blueprint"
)

// ofTenant stands in an ARN for the tenant of whom calls, by the tag of the role; ofLabel for its name where a bucket has it.
const (
	ofTenant = "${aws:PrincipalTag/tenant}"
	ofLabel  = "${aws:PrincipalTag/label}"
)

// administrator is the parameter that names the role of the account's administrators.
const administrator = "AdministratorRole"

// Machine is the name under which the machine that fleet works from becomes the provisioner, and nobody else does; machineRole is the parameter that names
// its role, and no role of any account's where it has none.
const (
	Machine     = "machine"
	machineRole = "MachineRole"
	nobodysRole = "arn:aws:iam::000000000000:role/none"
)

// operators are the roles of those who change the plane, and the bound of all whom they make.
func (s *set) operators() {
	s.add("TenantBoundary", &iam.ManagedPolicy{ManagedPolicyName: new(s.place.cluster() + "-tenant-boundary"), Path: new("/a3/"), Description: new("The most that a role of any tenant may"),
		PolicyDocument: document(s.boundary()...)})
	s.parameter(administrator, "ARN of the role of the account's administrators, who may become the provisioner or break the glass", nil)
	s.add("SessionPolicy", &iam.ManagedPolicy{ManagedPolicyName: new(roleName(s.place.SessionPolicy())), Path: new("/a3/"), Description: new("What a session of the provisioner may, whichever tenant it is for"),
		PolicyDocument: document(append(s.session(), s.makesNoServices())...)})
	making := s.add("MakingPolicy", &iam.ManagedPolicy{ManagedPolicyName: new(roleName(s.place.MakingPolicy())), Path: new("/a3/"), Description: new("What a session of the provisioner may that makes a tenant's stack"),
		PolicyDocument: document(append(s.session(), s.makesZones()...)...)})
	// What takes no tenant's name the role has by the policy that its sessions are given.
	provisioner := s.operator("Provisioner", s.place.Provisioner(), "Carries out what fleet plans", append([]statement{s.provisionerTrust(), s.itself()}, s.machine()...))
	provisioner.ManagedPolicyArns = []string{ref(making)}
	// A role takes 10,240 characters of policies of its own, and a policy apart 6,144.
	for _, part := range s.provisioner() {
		provisioner.ManagedPolicyArns = append(provisioner.ManagedPolicyArns, ref(s.add("Provisioner"+logical(part.name), &iam.ManagedPolicy{ManagedPolicyName: new(s.place.cluster() + "-provisioner-" + part.name),
			Path: new("/a3/"), Description: new("What the provisioner may: " + part.name), PolicyDocument: document(part.statements...)})))
	}
	s.operator("BreakGlass", s.place.BreakGlass(), "For people, where nothing else helps", []statement{s.administrators()},
		allow("RescueKeys", []string{"kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy", "kms:CancelKeyDeletion", "kms:EnableKey"}, []string{s.place.arn("kms", "key/*")}).
			under("StringEquals", when{"aws:ResourceTag/plane": s.place.Plane}),
		// Of the plane's own key, which is no tenant's: a plane that is given up has nobody else.
		allow("ShredThePlanesKey", []string{"kms:ScheduleKeyDeletion"}, []string{s.place.arn("kms", "key/*")}).
			under("StringEquals", when{"aws:ResourceTag/plane": s.place.Plane}).under("Null", when{"aws:ResourceTag/tenant": "true"}).
			under("NumericGreaterThanEquals", when{"kms:ScheduleKeyDeletionPendingWindowInDays": ShredAfter}))
	if s.place.Hub != "" {
		return
	}
	s.parameter("Organization", "Id of the organization whose accounts of tenants pull images, o-…; none where tenants share the plane's account", new("none"))
	s.add("Repository", &ecr.Repository{RepositoryName: new(s.place.cluster() + "/" + s.blueprint.Artefact), ImageTagMutability: new("IMMUTABLE"), Tags: s.tags(),
		RepositoryPolicyText: document(statement{Sid: "AccountsOfTenants", Effect: "Allow", Principal: map[string]string{"AWS": "*"}, Action: pull,
			Condition: map[string]any{"StringEquals": when{"aws:PrincipalOrgID": ref("Organization")}, "ArnLike": when{"aws:PrincipalArn": "arn:aws:iam::*:role/tenant/*"}}}),
		ImageScanningConfiguration: &ecr.Repository_ImageScanningConfiguration{ScanOnPush: new(true)}})
}

// pull are the actions that get an image.
var pull = []string{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"}

func (s *set) operator(id, arn, description string, trust []statement, own ...statement) *iam.Role {
	r := &iam.Role{RoleName: new(roleName(arn)), Path: new("/a3/"), Description: new(description), MaxSessionDuration: new(3600), Tags: s.tags(), AssumeRolePolicyDocument: document(trust...)}
	if len(own) > 0 {
		r.Policies = []iam.Role_Policy{{PolicyName: "own", PolicyDocument: document(own...)}}
	}
	s.add(id, r)
	return r
}

// administrators are people, each under a name. Their second factor is for who lets them become administrators to demand: a session of a role, as
// they have, says nothing of it, so that a condition on it here would let nobody in.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_mfa_configure-api-require.html
func (s *set) administrators() statement {
	return statement{Sid: "AdministratorsUnderAName", Effect: "Allow", Principal: map[string]string{"AWS": ref(administrator)}, Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"},
		Condition: map[string]any{"StringLike": when{"sts:SourceIdentity": "?*"}, "StringNotEquals": when{"sts:SourceIdentity": Machine}}}
}

// machine is that fleet's machine becomes the plane's provisioner by itself, where it has a role of its own for that: what nobody is there for goes on then,
// as backups and the renewal of certificates do, and stands in CloudTrail as the machine's.
func (s *set) machine() []statement {
	if s.place.Hub != "" {
		return nil
	}
	s.parameter(machineRole, "ARN of the role of the machine that fleet works from, by which it becomes the provisioner with nobody there", new(nobodysRole))
	return []statement{statement{Sid: "TheMachine", Effect: "Allow", Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"}}.by(s.place, ref(machineRole)).
		under("StringEquals", when{"sts:SourceIdentity": Machine})}
}

// provisionerTrust is who becomes the provisioner: in the plane's account its administrators; in a tenant's own account the plane's provisioner,
// who says which tenant it means. The name of the person who became that goes along.
func (s *set) provisionerTrust() statement {
	if s.place.Hub == "" {
		return s.administrators()
	}
	return statement{Sid: "ThePlanesProvisioner", Effect: "Allow", Principal: map[string]string{"AWS": s.place.home().Provisioner()}, Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"},
		Condition: map[string]any{"StringEquals": when{"sts:ExternalId": s.place.ExternalID(s.guest)}, "StringLike": when{"sts:SourceIdentity": "?*"}}}
}

// itself is who takes the provisioner's role in a session for one tenant (Session): the provisioner. A role that isn't there yet can't be named
// as a principal of its own trust.
func (s *set) itself() statement {
	return statement{Sid: "ItselfForOneTenant", Effect: "Allow", Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"}}.by(s.place, s.place.Provisioner())
}

// boundary is the most that a role of a tenant may, whatever its own policies say: what carries the tenant's id, by the role's tag and its path. A role
// without the tag has nothing; nor has one whose tag isn't its path's tenant, for who takes a role may give the session a tag of any value, which then counts
// in the place of the role's, where the role's trust lets them, and a session of the tenant's may change that. The path stays the role's.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
func (s *set) boundary() []statement {
	p := s.place
	tagged := func(st statement) statement {
		return st.under("Null", when{"aws:PrincipalTag/tenant": "false", "aws:PrincipalTag/label": "false"}).
			under("ArnLike", when{"aws:PrincipalArn": p.iam("role/" + string(blueprint.ScopeTenant) + "/" + ofTenant + "/*")})
	}
	bucket := "arn:aws:s3:::" + p.cluster() + "-" + ofLabel + "-*"
	return []statement{
		tagged(allow("Objects", []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"},
			[]string{bucket + "/" + ofTenant + "/*"})),
		tagged(allow("ListObjects", []string{"s3:ListBucket"}, []string{bucket}).under("StringLike", when{"s3:prefix": ofTenant + "/*"})),
		tagged(allow("Secrets", []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret", "secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret", "secretsmanager:TagResource"},
			[]string{p.arn("secretsmanager", "secret:tenant/"+ofTenant+"/*")})),
		tagged(allow("Messages", []string{"sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:ListQueueTags", "sqs:PurgeQueue"}, []string{p.arn("sqs", ofTenant+"-*")})),
		tagged(allow("Keys", []string{"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"}, []string{p.arn("kms", "key/*")}).under("StringEquals", when{"aws:ResourceTag/tenant": ofTenant})),
		tagged(allow("LogInToTheDatabase", []string{"rds-db:connect"}, []string{p.arn("rds-db", "dbuser:*/"+ofTenant+"_*")})),
		tagged(allow("Logs", []string{"logs:CreateLogStream", "logs:PutLogEvents"}, []string{p.arn("logs", "log-group:/a3/tenant/"+ofTenant+"/*")})),
		allow("LogInToRepositories", []string{"ecr:GetAuthorizationToken"}, []string{"*"}),
		allow("PullImages", pull, []string{p.home().arn("ecr", "repository/"+p.cluster()+"/*")}),
	}
}

// part is some of what a role may, under the name that its policy has.
type part struct {
	name       string
	statements []statement
}

// provisioner may make and change what tenants' stacks hold, and read none of their data. Each tenant's steps run in a session whose policy
// names that tenant alone.
func (s *set) provisioner() []part {
	out := []part{{"stacks", s.stacksOfTenants()}, {"data", s.dataOfTenants()}, {"tasks", s.tasksOfTenants()}, {"looks", s.looksAtTenants()}}
	if s.place.Hub == "" {
		out = append(out, part{"plane", s.control()})
	}
	return out
}

// stacksOfTenants are the stacks themselves, and the roles in them.
func (s *set) stacksOfTenants() []statement {
	p := s.place
	roles := []string{p.iam("role/" + string(blueprint.ScopeTenant) + "/*")}
	return []statement{
		allow("OneTenant", []string{"sts:AssumeRole", "sts:SetSourceIdentity"}, []string{p.Provisioner()}),
		allow("Stacks", []string{"cloudformation:CreateChangeSet", "cloudformation:DescribeChangeSet", "cloudformation:ExecuteChangeSet", "cloudformation:DeleteChangeSet", "cloudformation:DescribeStacks",
			"cloudformation:DescribeStackEvents", "cloudformation:DescribeStackResources", "cloudformation:ListStackResources", "cloudformation:GetTemplate", "cloudformation:SetStackPolicy", "cloudformation:GetStackPolicy", "cloudformation:UpdateTerminationProtection",
			"cloudformation:DeleteStack", "cloudformation:ContinueUpdateRollback", "cloudformation:DetectStackDrift", "cloudformation:DescribeStackResourceDrifts"},
			[]string{p.arn("cloudformation", "stack/"+p.cluster()+"-tnt-*/*")}),
		// Where the shared database server is.
		allow("LookAtThePlane", []string{"cloudformation:DescribeStacks"}, []string{p.arn("cloudformation", "stack/"+p.PlaneStack()+"/*")}),
		// What a stack is made by, which CloudFormation reads as who asked it to.
		allow("Templates", []string{"s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:DeleteObjectVersion"}, []string{bucketARN(p.Templates()) + "/" + p.cluster() + "-tnt-*"}),
		s.templatesKey(attribute(keyID, "Arn")),
		allow("BoundedRoles", []string{"iam:CreateRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy"}, roles).under("ArnEquals", when{"iam:PermissionsBoundary": p.Boundary()}),
		allow("Roles", []string{"iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies", "iam:DeleteRole", "iam:TagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:UpdateRoleDescription"}, roles),
		allow("LookForRoles", []string{"iam:GetRole"}, []string{p.iam("role/tnt_*")}),
		allow("PassToTasks", []string{"iam:PassRole"}, roles).under("StringEquals", when{"iam:PassedToService": "ecs-tasks.amazonaws.com"}),
		// What another made is not taken into a stack, by which CloudFormation would tag and delete it.
		// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/security_iam_id-based-policy-examples.html
		{Sid: "TakeInNothing", Effect: "Deny", Action: []string{"cloudformation:CreateChangeSet"}, Resource: []string{"*"}, Condition: map[string]any{"ForAnyValue:StringLike": when{"cloudformation:ImportResourceTypes": "*"}}},
		{Sid: "KeepTheBoundary", Effect: "Deny", Action: []string{"iam:DeleteRolePermissionsBoundary", "iam:PutRolePermissionsBoundary", "iam:UntagRole"}, Resource: []string{"*"}},
		{Sid: "KeepTheBoundaryAsItIs", Effect: "Deny", Action: []string{"iam:CreatePolicyVersion", "iam:DeletePolicy", "iam:DeletePolicyVersion", "iam:SetDefaultPolicyVersion"}, Resource: []string{p.Boundary(), p.SessionPolicy(), p.MakingPolicy()}},
		allow("BecomeKeepersOfStores", []string{"sts:AssumeRole", "sts:SetSourceIdentity"}, keeperARNs(p)).
			under("StringLike", when{"sts:ExternalId": p.ExternalID("tnt_*")}),
	}
}

// dataOfTenants is what keeps data: it is made, changed and deleted, and what components are given is written.
func (s *set) dataOfTenants() []statement {
	p := s.place
	return []statement{
		allow("Keys", []string{"kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags", "kms:UpdateKeyDescription",
			"kms:DisableKey", "kms:EnableKey", "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion", "kms:Decrypt", "kms:GenerateDataKey", "kms:CreateGrant"}, []string{p.arn("kms", "key/*")}).
			under("Null", when{"aws:ResourceTag/tenant": "false"}),
		// What components are given. Of the secrets that a tenant keeps it deletes what is left, and reads none.
		allow("Secrets", []string{"secretsmanager:CreateSecret", "secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecret", "secretsmanager:DeleteSecret",
			"secretsmanager:TagResource", "secretsmanager:GetResourcePolicy", "secretsmanager:PutResourcePolicy", "secretsmanager:DeleteResourcePolicy"},
			// Asked about one that is not there, AWS knows its name and no letters after it.
			[]string{p.arn("secretsmanager", "secret:tenant/*/component/*"), p.arn("secretsmanager", "secret:tenant/*/"+custodySecret+"-??????"), p.arn("secretsmanager", "secret:tenant/*/"+custodySecret)}),
		allow("DeleteSecretsOfStores", []string{"secretsmanager:DescribeSecret", "secretsmanager:DeleteSecret"}, []string{p.arn("secretsmanager", "secret:tenant/*/store/*")}),
		// The first user of a server, which RDS makes.
		allow("ServersUsers", []string{"secretsmanager:CreateSecret", "secretsmanager:TagResource", "secretsmanager:GetSecretValue"}, []string{serversUsers(p)}),
		allow("Buckets", []string{"s3:CreateBucket", "s3:DeleteBucket", "s3:ListBucket", "s3:DeleteObject", "s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:PutEncryptionConfiguration",
			"s3:GetEncryptionConfiguration", "s3:PutBucketPublicAccessBlock", "s3:GetBucketPublicAccessBlock", "s3:PutBucketOwnershipControls", "s3:GetBucketOwnershipControls", "s3:PutLifecycleConfiguration",
			"s3:GetLifecycleConfiguration", "s3:PutBucketTagging", "s3:TagResource", "s3:GetBucketTagging"}, []string{"arn:aws:s3:::" + p.cluster() + "-tnt-*", "arn:aws:s3:::" + p.cluster() + "-tnt-*/*"}),
		allow("Queues", []string{"sqs:CreateQueue", "sqs:DeleteQueue", "sqs:GetQueueAttributes", "sqs:SetQueueAttributes", "sqs:GetQueueUrl", "sqs:TagQueue", "sqs:ListQueueTags"}, []string{p.arn("sqs", "tnt_*")}),
		allow("Databases", []string{"rds:CreateDBInstance", "rds:ModifyDBInstance", "rds:DeleteDBInstance", "rds:CreateDBSnapshot", "rds:AddTagsToResource", "rds:ListTagsForResource"},
			append([]string{p.arn("rds", "db:"+p.cluster()+"-tnt-*"), p.arn("rds", "snapshot:*")}, standardsOfServers(p)...)),
		// A server gives its snapshots its own tags, whatever they are called.
		allow("SnapshotsOfTenants", []string{"rds:DeleteDBSnapshot"}, []string{p.arn("rds", "snapshot:*")}).under("Null", when{"aws:ResourceTag/tenant": "false"}),
	}
}

// tasksOfTenants is what runs, and what it needs of the network.
func (s *set) tasksOfTenants() []statement {
	p := s.place
	return []statement{
		allow("Logs", []string{"logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:PutRetentionPolicy", "logs:DeleteRetentionPolicy", "logs:AssociateKmsKey", "logs:TagResource", "logs:ListTagsForResource", "logs:DescribeLogStreams", "logs:GetLogEvents"}, []string{p.arn("logs", "log-group:/a3/tenant/*")}),
		allow("Services", []string{"ecs:CreateService", "ecs:UpdateService", "ecs:DeleteService", "ecs:DescribeServices", "ecs:ListServiceDeployments", "ecs:DescribeServiceDeployments", "ecs:StopServiceDeployment",
			"ecs:RunTask", "ecs:TagResource", "ecs:ListTagsForResource", "ecs:DeleteTaskDefinitions"},
			[]string{p.arn("ecs", "service/"+p.cluster()+"/tnt_*"), p.arn("ecs", "service-deployment/"+p.cluster()+"/tnt_*"), p.arn("ecs", "task-definition/tnt_*")}),
		allow("Alarms", []string{"cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", "cloudwatch:TagResource"}, []string{p.arn("cloudwatch", "alarm:tnt_*")}),
		// Of these AWS knows no resource before they are made, or none at all. What is made is given the tenant's tag and is changed by it.
		allow("MakeTagged", []string{"kms:CreateKey", "ecs:RegisterTaskDefinition", "servicediscovery:CreateService"}, []string{"*"}).
			under("Null", when{"aws:RequestTag/tenant": "false"}).under("StringEqualsIfExists", when{"aws:ResourceTag/tenant": "${aws:RequestTag/tenant}"}),
		// Whoever gives a thing its tag has it. So what has none yet, as most of an account has not, CloudFormation alone gives one, which does so to what it makes for
		// a stack (TakeInNothing), some of it in a call of its own; what is another tenant's or the plane's stays that. Of what Cloud Map tags it says nothing.
		allow("TagMade", []string{"kms:TagResource", "ec2:CreateTags"}, []string{"*"}).under("Null", when{"aws:RequestTag/tenant": "false"}).
			under("ForAnyValue:StringEquals", when{"aws:CalledVia": "cloudformation.amazonaws.com"}).under("StringEqualsIfExists", when{"aws:ResourceTag/tenant": "${aws:RequestTag/tenant}"}),
		allow("TagNames", []string{"servicediscovery:TagResource"}, []string{"*"}).under("Null", when{"aws:RequestTag/tenant": "false"}).
			under("ForAnyValue:StringEquals", when{"aws:CalledVia": "cloudformation.amazonaws.com"}),
		allow("TagOwn", []string{"kms:TagResource", "ec2:CreateTags"}, []string{"*"}).
			under("Null", when{"aws:RequestTag/tenant": "false"}).under("StringEquals", when{"aws:ResourceTag/tenant": "${aws:RequestTag/tenant}"}),
		{Sid: "KeepWhatIsThePlanes", Effect: "Deny", Action: []string{"kms:TagResource", "ec2:CreateTags", "servicediscovery:CreateService"}, Resource: []string{"*"},
			Condition: map[string]any{"Null": when{"aws:ResourceTag/plane": "false", "aws:ResourceTag/tenant": "true"}}},
		allow("ChangeTagged", []string{"ec2:DeleteSecurityGroup", "ec2:AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress", "ec2:RevokeSecurityGroupEgress",
			"ec2:UpdateSecurityGroupRuleDescriptionsIngress", "ec2:UpdateSecurityGroupRuleDescriptionsEgress", "servicediscovery:UpdateService", "servicediscovery:DeleteNamespace", "servicediscovery:DeleteService"}, []string{"*"}).under("Null", when{"aws:ResourceTag/tenant": "false"}),
		allow("LogInToRepositories", []string{"ecr:GetAuthorizationToken"}, []string{"*"}),
		allow("Quotas", []string{"servicequotas:GetServiceQuota", "servicequotas:GetAWSDefaultServiceQuota"}, []string{"*"}),
		allow("PushImages", []string{"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage"},
			[]string{p.arn("ecr", "repository/"+p.cluster()+"/*")}),
	}
}

// makesZones is to make a namespace of Cloud Map, which is a zone of Route 53 that Cloud Map makes in the caller's name. Whoever may can have any name in
// the world be its own for all who stand in the network, for AWS knows no condition on what a zone is called and asks no other about a name
// that one covers; so the session in which fleet itself makes a stack as it rendered it has this, and no session that works on it later.
// https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-api-permissions-ref.html
// https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/hosted-zone-private-considerations.html
func (s *set) makesZones() []statement {
	return []statement{
		allow("MakeNamespaces", []string{"servicediscovery:CreatePrivateDnsNamespace"}, []string{"*"}).under("Null", when{"aws:RequestTag/tenant": "false"}),
		allow("ZonesOfNamespaces", []string{"route53:CreateHostedZone", "route53:ListHostedZonesByName"}, []string{"*"}).under("Bool", when{"aws:ViaAWSService": "true"}),
	}
}

// makesNoServices is that a session which works on a stack that is there makes no service of ECS's. What a service stands behind, a target group of a load
// balancer or a name of Cloud Map's, ECS registers its tasks with by its own role, and asks of who makes it nothing but the service's name: AWS knows a condition on
// its subnets and its definition, and none on that or on its groups. Fleet itself makes services, as it rendered them (makesZones).
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
func (s *set) makesNoServices() statement {
	return statement{Sid: "MakeNoServices", Effect: "Deny", Action: []string{"ecs:CreateService"}, Resource: []string{"*"}}
}

// looksAtTenants is what CloudFormation reads in the caller's name of what a stack made, to compare it with the template, and fleet doesn't need besides.
func (s *set) looksAtTenants() []statement {
	p := s.place
	return []statement{
		allow("LookAtBuckets", []string{"s3:GetAccelerateConfiguration", "s3:GetAnalyticsConfiguration", "s3:GetBucketCORS", "s3:GetBucketLogging", "s3:GetBucketNotification", "s3:GetBucketVersioning", "s3:GetBucketWebsite",
			"s3:GetBucketAbac", "s3:GetBucketMetadataTableConfiguration", "s3:ListTagsForResource",
			"s3:GetBucketObjectLockConfiguration", "s3:GetIntelligentTieringConfiguration", "s3:GetInventoryConfiguration", "s3:GetMetricsConfiguration", "s3:GetReplicationConfiguration"}, []string{"arn:aws:s3:::" + p.cluster() + "-tnt-*"}),
		allow("LookAtLogs", []string{"logs:GetDataProtectionPolicy"}, []string{p.arn("logs", "log-group:/a3/tenant/*")}),
		allow("LookAtAlarms", []string{"cloudwatch:ListTagsForResource"}, []string{p.arn("cloudwatch", "alarm:tnt_*")}),
	}
}

// ofNobody is what takes no tenant's name: to look, and what services do in the caller's name when they are asked for something of a tenant's.
func (s *set) ofNobody() []statement {
	p := s.place
	return []statement{
		allow("Look", []string{"ec2:DescribeSecurityGroups", "ec2:DescribeSecurityGroupRules", "ec2:DescribeVpcs", "ec2:DescribeSubnets", "ec2:DescribeRegions",
			"ec2:DescribeAccountAttributes", "ec2:DescribeAvailabilityZones", "ec2:DescribeInternetGateways", "ec2:DescribeVpcAttribute",
			"ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitions", "ecs:DeregisterTaskDefinition", "ecs:DescribeClusters", "ecs:ListTasks",
			"rds:DescribeDBInstances", "rds:DescribeDBSnapshots", "rds:DescribeDBInstanceAutomatedBackups", "rds:DescribeEvents", "rds:DescribeDBClusters", "rds:DescribeDBEngineVersions", "rds:DescribeDBParameterGroups",
			"servicediscovery:GetNamespace", "servicediscovery:GetService", "servicediscovery:GetServiceAttributes", "servicediscovery:GetOperation", "servicediscovery:ListNamespaces", "servicediscovery:ListServices", "servicediscovery:ListInstances", "servicediscovery:ListTagsForResource",
			"elasticloadbalancing:DescribeTargetHealth", "elasticloadbalancing:DescribeLoadBalancers", "elasticloadbalancing:DescribeListeners",
			"logs:DescribeLogGroups", "logs:DescribeIndexPolicies", "logs:DescribeResourcePolicies", "secretsmanager:ListSecrets", "kms:ListKeys", "s3:ListAllMyBuckets",
			"cloudwatch:DescribeAlarms", "cloudformation:ListExports", "cloudformation:ValidateTemplate", "cloudformation:DescribeStackDriftDetectionStatus"}, []string{"*"}),
		// A task's name says nothing of whose it is.
		allow("LookAtTasks", []string{"ecs:DescribeTasks"}, []string{p.arn("ecs", "task/"+p.cluster()+"/*")}),
		// CloudFormation asks for it right after it made a key, whose tag may not count yet for minutes. Of a key that renews itself already it changes nothing.
		// https://docs.aws.amazon.com/kms/latest/developerguide/tag-authorization.html
		allow("RenewKeys", []string{"kms:EnableKeyRotation"}, []string{p.arn("kms", "key/*")}),
		// A group is given its tag, by which it can be changed, when it is made or after. It has no way in or out before.
		allow("MakeGroups", []string{"ec2:CreateSecurityGroup"}, []string{p.arn("ec2", "security-group/*"), p.arn("ec2", "vpc/*")}),
		// What stacks were made by, by their names, of which the templates of one that left are deleted.
		allow("LookForTemplates", []string{"s3:ListBucketVersions"}, []string{bucketARN(p.Templates())}).under("StringLike", when{"s3:prefix": p.cluster() + "-tnt-*"}),
		// The zone of a namespace Cloud Map deletes in the caller's name.
		// https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-api-permissions-ref.html
		allow("ZoneOfANamespace", []string{"route53:GetHostedZone", "route53:DeleteHostedZone"}, []string{"arn:aws:route53:::hostedzone/*"}).under("Bool", when{"aws:ViaAWSService": "true"}),
	}
}

// session is what each session may that works on one tenant (Session), besides what that tenant's name or tag is on. It is a policy apart, since
// what a session is given in a call is 2,048 characters long at most.
func (s *set) session() []statement {
	return append(s.ofNobody(), s.rdsServesItself(), allow("StandardsOfServers", []string{"rds:CreateDBInstance", "rds:ModifyDBInstance"}, standardsOfServers(s.place)))
}

// standardsOfServers are what a server of RDS's is made with that is nobody's: options and parameters of the version, and subnets.
func standardsOfServers(p Place) []string {
	return []string{p.arn("rds", "og:default:postgres-"+engineMajor()), p.arn("rds", "pg:"+parametersOf(p)), p.arn("rds", "subgrp:*")}
}

// serversUsers are the secrets with the first users of servers, which RDS names by chance.
func serversUsers(p Place) string { return p.arn("secretsmanager", "secret:rds!db-*") }

// rdsRole is whom RDS is in the account; nobody else can take it.
func (s *set) rdsRole() string {
	return s.place.iam("role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS")
}

// rdsServesItself is that the first server of an account has RDS get its role there.
func (s *set) rdsServesItself() statement {
	return allow("RDSServesItself", []string{"iam:CreateServiceLinkedRole"}, []string{s.rdsRole()}).
		under("StringEquals", when{"iam:AWSServiceName": "rds.amazonaws.com"})
}

// control is what the provisioner may of the plane's own set: change the tasks of it and the services that keep them, say what they are given, and
// look. Its roles, network, server and secrets are administrators' to make.
func (s *set) control() []statement {
	p := s.place
	own, stack := p.of(string(blueprint.ScopePlane)), p.arn("cloudformation", "stack/"+p.ControlStack()+"/*")
	secrets := p.arn("secretsmanager", "secret:"+own.secretName("*"))
	return []statement{
		// Into accounts that tenants have to themselves, and of the same organization alone.
		allow("AccountsOfTenants", []string{"sts:AssumeRole", "sts:SetSourceIdentity"}, []string{strings.Replace(p.Provisioner(), p.Account, "*", 1)}).
			under("StringEquals", when{"aws:ResourceOrgID": "${aws:PrincipalOrgID}"}).under("StringLike", when{"sts:ExternalId": p.ExternalID("tnt_*")}),
		allow("StackOfThePlanesSet", []string{"cloudformation:CreateChangeSet", "cloudformation:DescribeChangeSet", "cloudformation:ExecuteChangeSet", "cloudformation:DeleteChangeSet", "cloudformation:DescribeStacks",
			"cloudformation:DescribeStackEvents", "cloudformation:DescribeStackResources", "cloudformation:ListStackResources", "cloudformation:GetTemplate", "cloudformation:SetStackPolicy", "cloudformation:GetStackPolicy",
			"cloudformation:UpdateTerminationProtection", "cloudformation:DeleteStack", "cloudformation:ContinueUpdateRollback"}, []string{stack}),
		allow("TemplatesOfThePlanesSet", []string{"s3:PutObject", "s3:GetObject"}, []string{bucketARN(p.Templates()) + "/" + p.ControlStack() + "/*"}),
		allow("SecretsOfThePlanesSet", []string{"secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"}, []string{secrets}),
		allow("KeyOfThePlanesSecrets", []string{"kms:Decrypt", "kms:GenerateDataKey"}, []string{attribute(keyID, "Arn")}).
			under("StringEquals", when{"kms:ViaService": p.service("secretsmanager")}).under("StringLike", when{"kms:EncryptionContext:SecretARN": []string{secrets, serversUsers(p)}}),
		// Whose a key is that no stack names any more, to tell of it.
		allow("LookWhoseKeys", []string{"kms:DescribeKey", "kms:ListResourceTags"}, []string{p.arn("kms", "key/*")}).
			under("StringEquals", when{"aws:ResourceTag/plane": p.Plane}).under("Null", when{"aws:ResourceTag/tenant": "true"}),
		allow("LogsOfThePlanesSet", []string{"logs:DescribeLogStreams", "logs:GetLogEvents"}, []string{p.arn("logs", "log-group:"+own.logGroup("*"))}),
		allow("ServicesOfThePlanesSet", []string{"ecs:CreateService", "ecs:UpdateService", "ecs:DeleteService", "ecs:DescribeServices", "ecs:ListServiceDeployments", "ecs:DescribeServiceDeployments", "ecs:StopServiceDeployment",
			"ecs:RunTask", "ecs:TagResource", "ecs:ListTagsForResource", "ecs:DeleteTaskDefinitions"},
			[]string{p.arn("ecs", "service/"+p.cluster()+"/"+own.called("*")), p.arn("ecs", "service-deployment/"+p.cluster()+"/"+own.called("*")), p.arn("ecs", "task-definition/"+own.called("*"))}),
		allow("TasksOfThePlanesSet", []string{"ecs:RegisterTaskDefinition"}, []string{"*"}).
			under("StringEquals", when{"aws:RequestTag/plane": p.Plane}).under("Null", when{"aws:RequestTag/tenant": "true"}),
		// What stands in the cluster that is of no set, or stands before the plane's own.
		allow("LookForServices", []string{"ecs:ListServices"}, []string{"*"}),
		allow("LookAtRolesOfThePlanesSet", []string{"iam:GetRole"}, []string{p.iam("role/" + own.path() + "*")}),
		allow("PassToThePlanesTasks", []string{"iam:PassRole"}, []string{p.iam("role/" + own.path() + "*")}).under("StringEquals", when{"iam:PassedToService": "ecs-tasks.amazonaws.com"}),
	}
}
