package stack

import (
	"fmt"

	"a3os.app/deploy/blueprint"
)

// Keeper is how the name of a role ends that fleet becomes for what lies in a set's stores, one for each thing that it does there. None does what
// another is for, and the provisioner itself does none of it, so that whoever looks into a tenant's stores stands in the trail as that tenant's
// keeper, bounded as all of its roles are.
type Keeper string

// The keepers of a set's stores.
const (
	// Custodian puts the set's marks on them.
	Custodian Keeper = "custodian"
	// Backup reads them, for a backup or an export: credentials as they are sealed there, to a key that it doesn't have.
	Backup Keeper = "backup"
	// Restore writes them from a backup, and reads of them the marks alone.
	Restore Keeper = "restore"
)

// Keepers are all of them, with what each is for.
var Keepers = map[Keeper]string{Custodian: "What fleet marks the stores of %s as", Backup: "What fleet reads the stores of %s as, to back them up or export them",
	Restore: "What fleet writes the stores of %s as, from a backup"}

// keeperARNs are those of every tenant.
func keeperARNs(p Place) (arns []string) {
	for keeper := range sorted(Keepers) {
		arns = append(arns, p.iam("role/"+string(blueprint.ScopeTenant)+"/*-"+string(keeper)))
	}
	return arns
}

func (s *set) keeperARN(k Keeper) string {
	return s.place.iam("role/" + s.path() + s.called(string(k)))
}

// keeperID is a keeper's role in its set's template.
func keeperID(k Keeper) string { return logical(string(k)) + "Role" }

func (s *set) keepers() {
	trust := statement{Sid: "TheProvisionerForThisTenant", Effect: "Allow", Principal: map[string]string{"AWS": s.place.Provisioner()}, Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"},
		Condition: map[string]any{"StringEquals": when{"sts:ExternalId": s.place.ExternalID(s.tenant)}, "StringLike": when{"sts:SourceIdentity": "?*"}}}
	uses := s.custody()
	for keeper, description := range sorted(Keepers) {
		arn := s.keeperARN(keeper)
		s.role(keeperID(keeper), arn, fmt.Sprintf(description, s.name()), trust, s.used(uses, arn))
	}
}

// custody is what they do.
func (s *set) custody() (out []use) {
	if s.tenant == "" {
		return nil
	}
	for name, store := range sorted(s.blueprint.Stores) {
		if store.Kind == blueprint.StoreBlob {
			out = append(out, s.keptObjects(name)...)
		} else {
			out = append(out, s.keptCredentials(name)...)
		}
	}
	if s.blueprint.Database != nil && s.blueprint.Database.Queue != "" {
		// What is on its way was enqueued by what a restore takes back.
		purge := use{role: s.keeperARN(Restore), sid: "EmptyTheQueue", actions: []string{"sqs:PurgeQueue"}, resources: []string{s.queueARN(s.queue())}}
		out = append(out, purge)
	}
	return out
}

func (s *set) keptObjects(name string) []use {
	bucket := bucketARN(s.bucket(name))
	mark, context := []string{bucket + "/" + s.name() + "/MARK"}, when{"kms:EncryptionContext:aws:s3:arn": bucket}
	marks := use{role: s.keeperARN(Custodian), sid: logical("mark", name), actions: []string{"s3:GetObject", "s3:PutObject"}, resources: mark, encrypts: true, service: "s3", context: context}
	// Whose place it is, the restorer sees, and nothing else of what is there.
	seen := use{role: s.keeperARN(Restore), sid: logical("mark", name), actions: []string{"s3:GetObject"}, resources: mark}
	writes := use{role: s.keeperARN(Restore), sid: logical("objects", name), actions: []string{"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"},
		resources: []string{bucket + "/" + s.name() + "/*"}, encrypts: true, service: "s3", context: context}
	list := func(k Keeper) use { return s.objects(s.keeperARN(k), name, false)[1] }
	return append(s.objects(s.keeperARN(Backup), name, false), marks, list(Custodian), seen, writes, list(Restore))
}

func (s *set) keptCredentials(name string) []use {
	mark := s.storeMark(s.keeperARN(Custodian), name)
	mark.actions = []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret", "secretsmanager:PutSecretValue", "secretsmanager:TagResource"}
	// A secret that isn't there yet has no letters after its name.
	mark.resources = append(mark.resources, s.place.arn("secretsmanager", "secret:"+s.path()+"store/"+name+"/MARK"))
	mark.encrypts, mark.service, mark.context = true, "secretsmanager", when{"kms:EncryptionContext:SecretARN": mark.resources[0]}
	mark.under = s.underItsKey()
	return []use{mark, s.credentials(s.keeperARN(Backup), name, false), s.credentials(s.keeperARN(Restore), name, true), s.storeMark(s.keeperARN(Restore), name)}
}
