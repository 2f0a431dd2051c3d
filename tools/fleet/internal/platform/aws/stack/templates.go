package stack

import (
	"github.com/awslabs/goformation/v7/cloudformation/policies"
	"github.com/awslabs/goformation/v7/cloudformation/s3"
)

const (
	templatesID = "Templates"
	// templateDays is how long a template is kept, and then as long as a version that another took the place of.
	templateDays = 90
)

// Templates is the plane's bucket for templates, which are too large for a call. Those of a stack lie below the stack's name, so that a session
// that works on one tenant can be kept to that one's.
func (p Place) Templates() string { return p.cluster() + "-templates-" + p.Account }

// StackOf is what the stack of a tenant is called, by the tenant's id; PlaneStack is the plane's own.
func (p Place) StackOf(tenant string) string { return p.cluster() + "-" + dashed(tenant) }

// PlaneStack is what the plane's stack is called.
func (p Place) PlaneStack() string { return p.cluster() + "-plane" }

// ControlStack is what the stack of the plane's own set at a release is called.
func (p Place) ControlStack() string { return p.cluster() + "-control" }

// templates is the bucket that CloudFormation reads templates from, with the credentials of who asked it to: the provisioner for tenants, the
// administrators for the plane. A template is what roles are made by, so nobody else writes one, and none is written over without a trace.
func (s *set) templates() {
	name := s.place.Templates()
	b := s.privateBucket(name)
	b.VersioningConfiguration = &s3.Bucket_VersioningConfiguration{Status: "Enabled"}
	b.LifecycleConfiguration.Rules = append(b.LifecycleConfiguration.Rules, s3.Bucket_Rule{Id: new("replaced"), Status: "Enabled",
		NoncurrentVersionExpiration: &s3.Bucket_NoncurrentVersionExpiration{NoncurrentDays: templateDays}},
		// CloudFormation reads one once, and fleet renders it anew.
		s3.Bucket_Rule{Id: new("read"), Status: "Enabled", ExpirationInDays: new(templateDays)}, s3.Bucket_Rule{Id: new("marks"), Status: "Enabled", ExpiredObjectDeleteMarker: new(true)})
	s.add(templatesID, b)
	arn := bucketARN(name)
	statements := append(closed([]string{"s3:*"}, []string{arn, arn + "/*"}, s.templateRoles()), onlyUnderKey(arn)...)
	s.add(templatesID+"Policy", &s3.BucketPolicy{Bucket: ref(templatesID), PolicyDocument: document(statements...)})
	s.Outputs[templatesID] = Output{Description: "Where templates are kept for CloudFormation to read", Value: ref(templatesID)}
}

// templateRoles are who writes templates, and who CloudFormation reads them as.
func (s *set) templateRoles() []string {
	return []string{s.place.Provisioner(), ref(administrator)}
}

// templatesKey is the use of the plane's key for templates: of the key's policy with `*`, which is the key.
func (s *set) templatesKey(resource string) statement {
	return allow("TemplatesKey", []string{"kms:Decrypt", "kms:GenerateDataKey"}, []string{resource}).
		under("StringEquals", when{"kms:ViaService": s.place.service("s3")}).
		under("StringLike", when{"kms:EncryptionContext:aws:s3:arn": bucketARN(s.place.Templates())})
}

func bucketARN(name string) string { return "arn:aws:s3:::" + name }

// privateBucket is one that is encrypted under the set's key, that nobody makes public, and that a deleted stack leaves.
func (s *set) privateBucket(name string) *s3.Bucket {
	return &s3.Bucket{
		BucketName: new(name), Tags: s.tags(),
		// One data key for many objects, or each object would be a call of KMS and its price.
		BucketEncryption: &s3.Bucket_BucketEncryption{ServerSideEncryptionConfiguration: []s3.Bucket_ServerSideEncryptionRule{{
			BucketKeyEnabled:              new(true),
			ServerSideEncryptionByDefault: &s3.Bucket_ServerSideEncryptionByDefault{SSEAlgorithm: "aws:kms", KMSMasterKeyID: new(attribute(keyID, "Arn"))},
		}}},
		OwnershipControls: &s3.Bucket_OwnershipControls{Rules: []s3.Bucket_OwnershipControlsRule{{ObjectOwnership: new("BucketOwnerEnforced")}}},
		PublicAccessBlockConfiguration: &s3.Bucket_PublicAccessBlockConfiguration{BlockPublicAcls: new(true), BlockPublicPolicy: new(true),
			IgnorePublicAcls: new(true), RestrictPublicBuckets: new(true)},
		LifecycleConfiguration: &s3.Bucket_LifecycleConfiguration{Rules: []s3.Bucket_Rule{{Id: new("unfinished"), Status: "Enabled",
			AbortIncompleteMultipartUpload: &s3.Bucket_AbortIncompleteMultipartUpload{DaysAfterInitiation: 1}}}},
		AWSCloudFormationDeletionPolicy: policies.DeletionPolicy("RetainExceptOnCreate"), AWSCloudFormationUpdateReplacePolicy: policies.UpdateReplacePolicy("Retain"),
	}
}

// onlyUnderKey denies to write an object under another key than the set's, or under none of KMS's. The parts of a large object say nothing of
// either, and one of which nothing is said is encrypted under the bucket's key, which is the set's; one of which it is said that it be KMS's and not which
// is encrypted under S3's own.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
func onlyUnderKey(arn string) []statement {
	const how, keyHeader = "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id"
	deny := func(sid string, condition map[string]any) statement {
		return statement{Sid: sid, Effect: "Deny", Principal: map[string]string{"AWS": "*"}, Action: []string{"s3:PutObject"}, Resource: []string{arn + "/*"}, Condition: condition}
	}
	return []statement{
		deny("OnlyUnderItsKey", map[string]any{"Null": when{keyHeader: "false"}, "StringNotEquals": when{keyHeader: attribute(keyID, "Arn")}}),
		deny("OnlyUnderAKeyByName", map[string]any{"StringEquals": when{how: "aws:kms"}, "Null": when{keyHeader: "true"}}),
		deny("OnlyByKMS", map[string]any{"Null": when{how: "false"}, "StringNotEquals": when{how: "aws:kms"}}),
	}
}
