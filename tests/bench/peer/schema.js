// The part of the service's schema that the bench asks for, under the same names.
export const schema = `
  enum RecordStatus { ACCEPTED DUPLICATE CONFLICT REJECTED }
  enum MasteryState { NO_DATA LOW_EVIDENCE OK }
  enum EnrollmentRole { STUDENT TEACHER }

  input RecordEventInput {
    eventId: ID
    source: String
    occurredAt: String
    studentId: ID
    classroomId: ID
    assignmentId: ID
    contentId: ID
    submissionId: ID
    conceptIds: [ID!]
    type: String
    score: Float
    maxScore: Float
  }

  type RecordedEvent { id: ID! seq: String! }
  type RecordError { code: String! field: [String!] message: String! }
  type RecordEventPayload { status: RecordStatus! event: RecordedEvent errors: [RecordError!]! }

  type Concept { key: String! name: String! }
  type ConceptMastery { concept: Concept! score: Float state: MasteryState! evidenceCount: Int! }
  type MasteryPage { nodes: [ConceptMastery!]! }
  type Student { key: String! displayName: String mastery(classroomId: ID, first: Int! = 20): MasteryPage }
  type Enrollment { personId: ID! role: EnrollmentRole! student: Student }
  type RosterPage { nodes: [Enrollment!]! }
  type Classroom { key: String! name: String! roster(first: Int! = 20): RosterPage }

  type Query { classroom(id: ID!): Classroom }
  type Mutation { recordEvent(input: RecordEventInput!): RecordEventPayload! }
`
