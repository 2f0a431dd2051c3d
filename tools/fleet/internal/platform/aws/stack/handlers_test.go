package stack_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// needless are permissions that CloudFormation's handlers name for what no stack that the provisioner changes has or does: by how it begins, and why.
var needless = map[string]string{
	"cloudwatch:UntagResource": untag, "ec2:DeleteTags": untag, "ecs:UntagResource": untag, "kms:UntagResource": untag, "logs:UntagResource": untag, "s3:UntagResource": untag, "secretsmanager:UntagResource": untag,
	"servicediscovery:UntagResource": untag, "sqs:UntagQueue": untag, "rds:RemoveTagsFromResource": untag, "iam:UntagRole": "it is denied, as a role's tag is what bounds it",
	"iam:AttachRolePolicy": "a tenant's role has its policies itself", "iam:DetachRolePolicy": "a tenant's role has its policies itself",
	"iam:PutRolePermissionsBoundary": "it is denied", "iam:DeleteRolePermissionsBoundary": "it is denied", "iam:ListRoles": "RDS monitors nothing as a role",
	"kms:DisableKeyRotation": "keys are renewed", "logs:DisassociateKmsKey": "logs are encrypted",
	"logs:PutDataProtectionPolicy": option, "logs:DeleteDataProtectionPolicy": option, "logs:CreateLogDelivery": option, "logs:PutResourcePolicy": option, "logs:DeleteResourcePolicy": option, "logs:PutIndexPolicy": option,
	"logs:DeleteIndexPolicy": option, "logs:PutBearerTokenAuthentication": option, "logs:PutLogGroupDeletionProtection": option, "s3:REST.PUT.OBJECT": option, "firehose:TagDeliveryStream": option,
	"s3:PutBucketAbac": option, "s3:PutAnalyticsConfiguration": option, "s3:PutBucketCORS": option, "s3:PutInventoryConfiguration": option, "s3:PutMetricsConfiguration": option, "s3:PutBucketNotification": option,
	"s3:PutBucketReplication": option, "s3:PutBucketWebsite": option, "s3:PutAccelerateConfiguration": option, "s3:PutReplicationConfiguration": option, "s3:PutObjectAcl": option, "s3:PutBucketObjectLockConfiguration": option,
	"s3:GetBucketAcl": option, "s3:PutBucketAcl": option, "s3:PutBucketLogging": option, "s3:PutBucketVersioning": option, "s3:PutObjectLockConfiguration": option, "s3:PutIntelligentTieringConfiguration": option,
	"s3:CreateBucketMetadataTableConfiguration": option, "s3:DeleteBucketMetadataTableConfiguration": option, "s3:UpdateBucketMetadata": option, "s3tables:": option, "s3:DeleteBucketWebsite": option,
	"s3:DeleteBucketAnalyticsConfiguration": option, "s3:DeleteBucketCors": option, "s3:DeleteBucketMetricsConfiguration": option, "s3:DeleteBucketEncryption": option, "s3:DeleteBucketLifecycle": option,
	"s3:DeleteBucketReplication": option, "secretsmanager:GetRandomPassword": "fleet makes what a secret holds", "secretsmanager:ReplicateSecretToRegions": option, "secretsmanager:RemoveRegionsFromReplication": option,
	"servicediscovery:UpdateServiceAttributes": option, "servicediscovery:DeleteServiceAttributes": option,
	"servicediscovery:UpdatePrivateDnsNamespace": "a zone is not changed: another is made", "route53:ChangeResourceRecordSets": "a zone is not changed: another is made",
	"ec2:DescribeInstances": "groups are of tasks and servers", "rds:AddRoleToDBInstance": option, "rds:RemoveRoleFromDBInstance": option, "rds:CreateDBInstanceReadReplica": option, "rds:PromoteReadReplica": option,
	"rds:RestoreDBInstance": "a server is made empty", "rds:DescribeDBClusterSnapshots": "a server is made empty", "rds:StartDBInstanceAutomatedBackupsReplication": option, "rds:StopDBInstanceAutomatedBackupsReplication": option,
	"rds:RebootDBInstance": "what takes a server down is administrators' to do",
}

const (
	option = "no template has that"
	untag  = "a change that takes a tag away is administrators' to make"
)

// The provisioner has each permission that CloudFormation says its handlers need for what stacks of tenants and the plane's own set hold: to make, read,
// change and delete it. The schemas are those that cfn-lint came with.
// https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
func TestProvisionerMayWhatHandlersOfCloudFormationAskFor(t *testing.T) {
	schemas, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(cfnLint(t))), "lib", "python3*", "site-packages", "cfnlint", "data", "schemas", "resources", "*.json"))
	if err != nil || len(schemas) == 0 {
		t.Skip("cfn-lint is installed without its schemas beside it: permissions of handlers were not looked at", err)
	}
	var may []string
	for _, st := range roleOf(t, read(t, planeText(t)), "provisioner").Statements {
		if st.Effect == "Allow" {
			may = append(may, st.Action...)
		}
	}
	made, err := stack.Control(input(t, planeSet(t)))
	texts := map[string][]byte{"control": text(t, made, err)}
	for name, text := range rendered(t, id.NewTenant()) {
		if name == "database" || name == "dedicated" {
			texts[name] = text
		}
	}
	types := map[string]bool{}
	for _, text := range texts {
		for _, r := range parsed(t, text).Resources {
			types[r.Type] = false
		}
	}
	used := map[string]bool{}
	for _, file := range schemas {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var schema struct {
			TypeName string
			Handlers map[string]struct{ Permissions []string }
		}
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(file, err)
		}
		if _, is := types[schema.TypeName]; !is || len(schema.Handlers) == 0 {
			continue
		}
		types[schema.TypeName] = true
		for _, handler := range []string{"create", "read", "update", "delete"} {
			for _, permission := range schema.Handlers[handler].Permissions {
				if slices.Contains(may, permission) {
					continue
				}
				is := false
				for begins := range needless {
					if strings.HasPrefix(permission, begins) {
						is, used[begins] = true, true
					}
				}
				if !is {
					t.Errorf("to %s %s CloudFormation asks for %s, which the provisioner hasn't", handler, schema.TypeName, permission)
				}
			}
		}
	}
	for kind, found := range types {
		if !found {
			t.Logf("nothing is known of what %s takes", kind)
		}
	}
	for begins := range needless {
		if !used[begins] {
			t.Errorf("%s is named as needless, and nothing asks for it, or the provisioner has it", begins)
		}
	}
}
