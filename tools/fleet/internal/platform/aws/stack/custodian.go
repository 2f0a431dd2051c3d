package stack

import "a3os.app/deploy/blueprint"

// custodianRole is how the name of the role ends that fleet becomes for what lies in a set's stores: it puts the set's marks on them, and reads
// objects to export them. The provisioner itself may do neither, so that whoever looks into a tenant's stores stands in the trail as the
// custodian of that tenant, bounded as all of its roles are.
const custodianRole = "custodian"

func (s *set) custodianARN() string {
	return s.place.iam("role/" + s.path() + s.called(custodianRole))
}

func (s *set) custodian() {
	arn := s.custodianARN()
	trust := statement{Sid: "TheProvisionerForThisTenant", Effect: "Allow", Principal: map[string]string{"AWS": s.place.Provisioner()}, Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"},
		Condition: map[string]any{"StringEquals": when{"sts:ExternalId": s.place.ExternalID(s.tenant)}, "StringLike": when{"sts:SourceIdentity": "?*"}}}
	s.role("CustodianRole", arn, "What fleet marks and exports the stores of "+s.name()+" as", trust, s.used(s.custody(), arn))
}

// custody is what the custodian does: of secrets the mark alone, of objects also what an export reads.
func (s *set) custody() (out []use) {
	if s.tenant == "" {
		return nil
	}
	role := s.custodianARN()
	for name, store := range sorted(s.blueprint.Stores) {
		if store.Kind == blueprint.StoreBlob {
			mark := use{role: role, sid: logical("mark", name), actions: []string{"s3:PutObject"}, resources: []string{bucketARN(s.bucket(name)) + "/" + s.name() + "/MARK"},
				encrypts: true, service: "s3", context: when{"kms:EncryptionContext:aws:s3:arn": bucketARN(s.bucket(name))}}
			out = append(append(out, s.objects(role, name, false)...), mark)
			continue
		}
		mark := s.storeMark(role, name)
		mark.actions = []string{"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret", "secretsmanager:PutSecretValue", "secretsmanager:TagResource"}
		// A secret that isn't there yet has no letters after its name.
		mark.resources = append(mark.resources, s.place.arn("secretsmanager", "secret:"+s.path()+"store/"+name+"/MARK"))
		mark.encrypts, mark.service, mark.context = true, "secretsmanager", when{"kms:EncryptionContext:SecretARN": mark.resources[0]}
		mark.under = s.underItsKey()
		out = append(out, mark)
	}
	return out
}
