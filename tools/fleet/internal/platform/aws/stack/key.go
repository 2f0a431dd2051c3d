package stack

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/awslabs/goformation/v7/cloudformation/kms"
	"github.com/awslabs/goformation/v7/cloudformation/policies"
)

// keyID is the set's key in its template.
const keyID = "Key"

// ShredAfter is how many days a key waits for its deletion, in which it can be taken back: the most that KMS knows.
const ShredAfter = 30

// key is what all data of the set is encrypted under: destroyed, it takes every copy along. A stack that is deleted leaves it, for its
// deletion is a step of its own.
func (s *set) key() {
	p, keepers := s.place, append(s.makers(), s.place.BreakGlass())
	given := []string{p.arn("secretsmanager", "secret:"+s.path()+"component/*"), s.secretARN(s.path() + custodySecret)}
	if s.dedicated {
		given = append(given, serversUsers(p))
	}
	statements := []statement{
		allow("Look", []string{"kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"}, []string{"*"}).by(p, keepers...),
		allow("Keep", []string{"kms:PutKeyPolicy", "kms:EnableKeyRotation", "kms:TagResource", "kms:UpdateKeyDescription", "kms:DisableKey", "kms:EnableKey", "kms:CancelKeyDeletion"},
			[]string{"*"}).by(p, keepers...),
		allow("Shred", []string{"kms:ScheduleKeyDeletion"}, []string{"*"}).by(p, keepers...).
			under("NumericGreaterThanEquals", when{"kms:ScheduleKeyDeletionPendingWindowInDays": ShredAfter}),
		allow("WriteSecrets", []string{"kms:Decrypt", "kms:GenerateDataKey"}, []string{"*"}).by(p, p.Provisioner()).
			under("StringEquals", when{"kms:ViaService": p.service("secretsmanager")}).
			under("StringLike", when{"kms:EncryptionContext:SecretARN": given}),
		s.logsKey(),
	}
	if s.dedicated {
		// RDS encrypts the server, and keeps its first user's password, in the name of who makes it, who grants it the key for that: by that grant
		// it gives the user another password each week, as its own role, which has no right on keys of its own.
		// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-secrets-manager.html
		by := []string{p.service("rds"), p.service("secretsmanager")}
		statements = append(statements,
			allow("EncryptItsDatabase", []string{"kms:CreateGrant"}, []string{"*"}).by(p, s.makers()...).
				under("StringEquals", when{"kms:ViaService": by}).under("Bool", when{"kms:GrantIsForAWSResource": "true"}),
			allow("KeepItsFirstUser", []string{"kms:Decrypt", "kms:GenerateDataKey"}, []string{"*"}).by(p, s.makers()...).
				under("StringEquals", when{"kms:ViaService": by}).under("StringLike", when{"kms:EncryptionContext:SecretARN": serversUsers(p)}))
	}
	roles := []string{p.Provisioner(), p.BreakGlass()}
	if s.tenant == "" {
		statements = append(statements, allow("LookWhose", []string{"kms:DescribeKey", "kms:ListResourceTags"}, []string{"*"}).by(p, p.Provisioner()))
		statements = append(statements, s.templatesKey("*").by(p, s.templateRoles()...))
		roles = append(roles, ref(administrator))
	}
	for _, u := range s.allUses() {
		if !u.ofKey() {
			continue
		}
		statements = append(statements, s.keyUse(u, "*").by(p, u.role).called(u.sid+logical(roleName(u.role)[len(s.name()):])))
		if !slices.Contains(roles, u.role) {
			roles = append(roles, u.role)
		}
	}
	s.add(keyID, &kms.Key{
		Description: new("Encrypts all that is of " + s.name()), EnableKeyRotation: new(true), PendingWindowInDays: new(ShredAfter), Tags: s.tags(),
		KeyPolicy:                       document(append(statements, s.closedKey(roles))...),
		AWSCloudFormationDeletionPolicy: policies.DeletionPolicy("RetainExceptOnCreate"), AWSCloudFormationUpdateReplacePolicy: policies.UpdateReplacePolicy("Retain"),
	})
	s.Outputs["Key"] = Output{Description: "What all data of the set is encrypted under", Value: attribute(keyID, "Arn")}
}

// makers are who deploys the stack, and keeps what it makes: the provisioner a tenant's, and the administrators the plane's.
func (s *set) makers() []string {
	if s.tenant == "" {
		return []string{ref(administrator)}
	}
	return []string{s.place.Provisioner()}
}

// closedKey denies the key to all other principals of the account. Those of other accounts, where AWS's services keep what a grant lets them
// use the key for, have nothing else that allows it.
func (s *set) closedKey(roles []string) statement {
	if s.dedicated {
		roles = append(slices.Clone(roles), s.rdsRole())
	}
	return statement{Sid: "OnlyItsOwn", Effect: "Deny", Principal: map[string]string{"AWS": "*"}, Action: []string{"kms:*"}, Resource: []string{"*"},
		Condition: map[string]any{"ArnNotEquals": when{"aws:PrincipalArn": roles}, "Bool": when{"aws:PrincipalIsAWSService": "false"},
			"StringEquals": when{"aws:PrincipalAccount": s.place.Account}}}
}

// logsKey has CloudWatch Logs encrypt the set's own groups, which are named with their account.
func (s *set) logsKey() statement {
	st := allow("EncryptItsLogs", []string{"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:DescribeKey"}, []string{"*"}).
		under("ArnLike", when{"kms:EncryptionContext:aws:logs:arn": s.place.arn("logs", "log-group:"+s.logGroup("*"))})
	st.Principal = map[string]string{"Service": s.place.service("logs")}
	return st
}

// allUses are those of all components, and of what migrates the database.
func (s *set) allUses() []use {
	var out []use
	for _, c := range s.blueprint.Components {
		out = append(out, s.uses(c)...)
	}
	if s.migrates() {
		out = append(out, s.started(migration))
	}
	return append(out, s.custody()...)
}

func (st statement) called(sid string) statement {
	st.Sid = sid
	return st
}

// sorted goes over a map in the order of its names.
func sorted[K cmp.Ordered, V any](m map[K]V) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}
