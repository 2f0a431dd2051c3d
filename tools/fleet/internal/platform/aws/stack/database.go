package stack

import (
	"strconv"
	"strings"

	"github.com/awslabs/goformation/v7/cloudformation/ec2"
	"github.com/awslabs/goformation/v7/cloudformation/policies"
	"github.com/awslabs/goformation/v7/cloudformation/rds"
)

const (
	databaseID = "Database"
	clientsID  = "DatabaseClients"
	// migration is what of a set migrates its database, beside its components.
	migration = "migrate"
	custodyID = "Custody"
	// custodySecret is its name below the set's path.
	custodySecret = "custody"
)

// Size of a database server, and how long its backups are kept. Its version changes with a plan, never by itself.
const (
	engineVersion = "17.7"
	serverClass   = "db.t4g.medium"
	storageGiB    = 20
	mostGiB       = 200
	backupDays    = 14
)

func (s *set) migrates() bool {
	return s.blueprint.Database != nil && len(s.blueprint.Database.Migrate.Command) > 0
}

// database is a server of the set's own, where it has one; without one it is a database of the plane's shared server, which fleet makes
// with its roles, for CloudFormation can't.
func (s *set) database() {
	s.secret(custodyID, s.path()+custodySecret, "Keys of "+s.name()+" that no component holds")
	if s.blueprint.Database == nil || !s.dedicated {
		return
	}
	s.server()
}

// server is a PostgreSQL server that only those with the clients' group reach, and the machine that fleet works from.
func (s *set) server() {
	vpc := s.vpc()
	clients := s.add(clientsID, &ec2.SecurityGroup{GroupDescription: "Who reaches the database of " + s.name(), VpcId: new(vpc), Tags: s.tags(), SecurityGroupEgress: nowhere()})
	group := s.add(databaseID+"Network", &ec2.SecurityGroup{GroupDescription: "The database of " + s.name(), VpcId: new(vpc), Tags: s.tags(), SecurityGroupEgress: nowhere(),
		SecurityGroupIngress: []ec2.SecurityGroup_Ingress{{IpProtocol: tcp, FromPort: new(postgresPort), ToPort: new(postgresPort), SourceSecurityGroupId: new(ref(clients)), Description: new("Its clients")},
			{IpProtocol: tcp, FromPort: new(postgresPort), ToPort: new(postgresPort), SourceSecurityGroupId: new(s.of(operatorsID)), Description: new("Fleet")}}})
	s.add(clientsID+"Out", &ec2.SecurityGroupEgress{GroupId: ref(clients), IpProtocol: tcp, FromPort: new(postgresPort), ToPort: new(postgresPort),
		DestinationSecurityGroupId: new(ref(group)), Description: new("The database")})
	s.add(databaseID, &rds.DBInstance{
		DBInstanceIdentifier: new(s.place.cluster() + "-" + s.label()), Engine: new("postgres"), EngineVersion: new(engineVersion), DBInstanceClass: new(serverClass),
		AllocatedStorage: new(strconv.Itoa(storageGiB)), MaxAllocatedStorage: new(mostGiB), StorageType: new("gp3"), StorageEncrypted: new(true), KmsKeyId: new(attribute(keyID, "Arn")),
		// RDS makes the first user's password and keeps it in a secret under the set's key; components log in as roles that fleet makes.
		MasterUsername: new("a3"), ManageMasterUserPassword: new(true), EnableIAMDatabaseAuthentication: new(true), MasterUserSecret: &rds.DBInstance_MasterUserSecret{KmsKeyId: new(attribute(keyID, "Arn"))},
		DBParameterGroupName: new(s.of(parametersID)), DBSubnetGroupName: new(s.of("DatabaseSubnets")), VPCSecurityGroups: []string{ref(group)}, PubliclyAccessible: new(false), MultiAZ: new(s.place.Plane == "prod"),
		BackupRetentionPeriod: new(backupDays), CopyTagsToSnapshot: new(true), DeleteAutomatedBackups: new(true), DeletionProtection: new(true), AutoMinorVersionUpgrade: new(false), Tags: s.tags(),
		AWSCloudFormationDeletionPolicy: policies.DeletionPolicy("Snapshot"), AWSCloudFormationUpdateReplacePolicy: policies.UpdateReplacePolicy("Snapshot"),
	})
	s.fullDatabase()
	s.Outputs["DatabaseHost"] = Output{Description: "The set's database server", Value: attribute(databaseID, "Endpoint.Address")}
	s.Outputs["DatabaseUser"] = Output{Description: "The secret with the server's first user, which fleet alone uses", Value: attribute(databaseID, "MasterUserSecret.SecretArn")}
}

// parametersID are the parameters of database servers, one group for all of a plane's, or of an account of a tenant's own. It has the major version in its name, as
// the group does: servers of tenants import it, and CloudFormation changes no value that another stack imports. A stack of another major version has
// both groups, until no server is of the one before.
var parametersID = "DatabaseParameters" + engineMajor()

// parametersOf is what the group of a plane is called.
func parametersOf(p Place) string { return p.cluster() + "-postgres" + engineMajor() }

func engineMajor() string {
	major, _, _ := strings.Cut(engineVersion, ".")
	return major
}

// parametersOfServers are what elsewhere each role is given that logs in, and what here only a superuser may give, whom nobody is: a bound to
// temporary files, 2 GiB in KiB, and what the server's log tells of waits, and of spills from 64 MiB on.
func (s *set) parametersOfServers() {
	s.add(parametersID, &rds.DBParameterGroup{DBParameterGroupName: new(parametersOf(s.place)), Description: "Database servers of the plane", Family: "postgres" + engineMajor(), Tags: s.tags(),
		Parameters: map[string]string{"temp_file_limit": "2097152", "log_lock_waits": "1", "log_temp_files": "65536"}})
}

// databaseClients is the group by which a task reaches the set's database.
func (s *set) databaseClients() string {
	if s.dedicated && !s.standing {
		return ref(clientsID)
	}
	return s.of(clientsID)
}
