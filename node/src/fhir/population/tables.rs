//! What the made-up people are made from: names, places, positions, illnesses and medicines. Names and places
//! are common ones; the provinces and communes are those of the two levels since July 2025, and the codes at the
//! beginning of an identity number are those of the 63 provinces in which today's adults were registered.

/// Family names with their share in a thousand, about.
#[rustfmt::skip]
pub(super) const FAMILY_NAMES: &[(&str, i64)] = &[
    ("Nguyễn", 380), ("Trần", 110), ("Lê", 95), ("Phạm", 70), ("Hoàng", 45), ("Huỳnh", 25), ("Phan", 45),
    ("Vũ", 30), ("Võ", 20), ("Đặng", 28), ("Bùi", 25), ("Đỗ", 20), ("Hồ", 14), ("Ngô", 13), ("Dương", 12),
    ("Lý", 10), ("Đinh", 10), ("Đoàn", 8), ("Lương", 8), ("Nông", 8), ("Vàng", 6), ("Giàng", 6), ("Sùng", 5),
    ("Lò", 6), ("Quàng", 3), ("Triệu", 5), ("Ma", 4), ("Hà", 6), ("Thạch", 3), ("Y", 1),
];

#[rustfmt::skip]
pub(super) const MALE_MIDDLE_NAMES: &[(&str, i64)] = &[
    ("Văn", 40), ("Đức", 10), ("Hữu", 9), ("Quang", 8), ("Minh", 8), ("Xuân", 6), ("Đình", 6), ("Công", 5),
    ("Ngọc", 5), ("Thành", 4), ("Mạnh", 3), ("Bá", 3), ("Duy", 3), ("Trọng", 3), ("Viết", 2), ("Thế", 3),
];
#[rustfmt::skip]
pub(super) const FEMALE_MIDDLE_NAMES: &[(&str, i64)] = &[
    ("Thị", 45), ("Thị Thu", 6), ("Thị Ngọc", 6), ("Thị Thanh", 6), ("Thị Bích", 4), ("Thị Kim", 5),
    ("Ngọc", 5), ("Thu", 5), ("Thanh", 4), ("Phương", 4), ("Khánh", 2), ("Diệu", 2), ("Minh", 3), ("Quỳnh", 2),
];
#[rustfmt::skip]
pub(super) const MALE_GIVEN_NAMES: &[&str] = &[
    "Hùng", "Dũng", "Cường", "Tuấn", "Sơn", "Hải", "Thắng", "Long", "Nam", "Đạt", "Hiếu", "Trung", "Quân",
    "Khoa", "Phúc", "Lộc", "Thịnh", "Bình", "An", "Tâm", "Nghĩa", "Đông", "Tùng", "Việt", "Giang", "Khải",
    "Toàn", "Vinh", "Thái", "Chiến", "Kiên", "Lâm", "Phong", "Hưng", "Đức", "Tiến", "Duy", "Chính", "Sử", "Páo",
];
#[rustfmt::skip]
pub(super) const FEMALE_GIVEN_NAMES: &[&str] = &[
    "Hoa", "Lan", "Hương", "Hằng", "Nga", "Thủy", "Hà", "Linh", "Trang", "Thảo", "Nguyệt", "Yến", "Mai",
    "Hồng", "Loan", "Phượng", "Tuyết", "Dung", "Hạnh", "Oanh", "Xuân", "Ngân", "Vân", "Quyên", "Nhung", "Huệ",
    "Ánh", "Thúy", "Trâm", "Chi", "My", "Hiền", "Liên", "Bích", "Diễm", "Đào", "Nhàn", "Tươi", "Mỷ", "Say",
];

/// A province since July 2025, the codes of the former provinces in it, and some of its communes.
pub(super) struct Province {
    pub name: &'static str,
    /// What the names of organizations there have in them.
    pub slugs: &'static [&'static str],
    pub birth_codes: &'static [&'static str],
    pub communes: &'static [&'static str],
}

#[rustfmt::skip]
pub(super) const PROVINCES: &[Province] = &[
    Province { name: "Tuyên Quang", slugs: &["tuyen-quang", "ha-giang", "dong-van", "meo-vac", "yen-minh", "bac-quang"],
        birth_codes: &["002", "008"], communes: &[
        "Xã Đồng Văn", "Xã Mèo Vạc", "Xã Lũng Cú", "Xã Yên Minh", "Xã Hoàng Su Phì", "Xã Bắc Quang",
        "Phường Hà Giang 1", "Phường Minh Xuân"] },
    Province { name: "Cao Bằng", slugs: &["cao-bang", "bao-lac"],
        birth_codes: &["004"], communes: &[
        "Phường Thục Phán", "Phường Tân Giang", "Xã Trùng Khánh", "Xã Bảo Lạc", "Xã Nguyên Bình"] },
    Province { name: "Lào Cai", slugs: &["lao-cai", "yen-bai", "sa-pa", "bac-ha"],
        birth_codes: &["010", "015"], communes: &[
        "Phường Sa Pa", "Phường Yên Bái", "Xã Bắc Hà", "Xã Mù Cang Chải", "Xã Bát Xát"] },
    Province { name: "Điện Biên", slugs: &["dien-bien", "muong-nhe"],
        birth_codes: &["011"], communes: &[
        "Phường Mường Lay", "Phường Điện Biên Phủ", "Xã Mường Nhé", "Xã Tủa Chùa"] },
    Province { name: "Hà Nội", slugs: &["ha-noi", "trung-uong", "ba-dinh"],
        birth_codes: &["001"], communes: &[
        "Phường Hoàn Kiếm", "Phường Ba Đình", "Phường Cầu Giấy", "Phường Tây Hồ", "Xã Sóc Sơn", "Xã Gia Lâm"] },
    Province { name: "Quảng Ninh", slugs: &["quang-ninh", "co-to", "van-don"],
        birth_codes: &["022"], communes: &[
        "Phường Hồng Gai", "Phường Móng Cái 1", "Đặc khu Cô Tô", "Đặc khu Vân Đồn"] },
    Province { name: "Nghệ An", slugs: &["nghe-an", "vinh", "con-cuong"],
        birth_codes: &["040"], communes: &[
        "Phường Trường Vinh", "Phường Cửa Lò", "Xã Con Cuông", "Xã Mường Xén", "Xã Quỳ Châu"] },
    Province { name: "Huế", slugs: &["hue", "a-luoi"],
        birth_codes: &["046"], communes: &[
        "Phường Thuận Hóa", "Phường Phú Xuân", "Phường Hương Thủy", "Xã A Lưới 1"] },
    Province { name: "Đà Nẵng", slugs: &["da-nang", "quang-nam", "hoi-an"],
        birth_codes: &["048", "049"], communes: &[
        "Phường Hải Châu", "Phường Sơn Trà", "Phường Hội An", "Phường Tam Kỳ"] },
    Province { name: "Đắk Lắk", slugs: &["dak-lak", "phu-yen", "ea-sup"],
        birth_codes: &["066", "054"], communes: &[
        "Phường Buôn Ma Thuột", "Phường Tuy Hòa", "Phường Buôn Hồ", "Xã Ea Súp"] },
    Province { name: "Thành phố Hồ Chí Minh", slugs: &["ho-chi-minh", "sai-gon", "con-dao"],
        birth_codes: &["079", "074", "077"], communes: &[
        "Phường Sài Gòn", "Phường Bến Thành", "Phường Thủ Dầu Một", "Phường Vũng Tàu", "Đặc khu Côn Đảo"] },
    Province { name: "Cà Mau", slugs: &["ca-mau", "bac-lieu", "nam-can"],
        birth_codes: &["096", "095"], communes: &[
        "Phường An Xuyên", "Phường Bạc Liêu", "Xã Đất Mũi", "Xã Năm Căn"] },
];

/// All codes that a CCCD can begin with: the 63 provinces until June 2025.
#[rustfmt::skip]
pub(super) const BIRTH_CODES: &[&str] = &[
    "001", "002", "004", "006", "008", "010", "011", "012", "014", "015", "017", "019", "020", "022", "024",
    "025", "026", "027", "030", "031", "033", "034", "035", "036", "037", "038", "040", "042", "044", "045",
    "046", "048", "049", "051", "052", "054", "056", "058", "060", "062", "064", "066", "067", "068", "070",
    "072", "074", "075", "077", "079", "080", "082", "083", "084", "086", "087", "089", "091", "092", "093",
    "094", "095", "096",
];

/// Positions of those in office, with the two letters and the benefit digit of their health insurance.
#[rustfmt::skip]
pub(super) const POSITIONS: &[((&str, &str), i64)] = &[
    (("Chuyên viên", "HC4"), 30), (("Chuyên viên chính", "HC4"), 15), (("Phó Trưởng phòng", "HC4"), 10),
    (("Trưởng phòng", "HC4"), 8), (("Phó Giám đốc Sở", "HC4"), 3), (("Giám đốc Sở", "HC4"), 2),
    (("Chủ tịch Ủy ban nhân dân xã", "HC4"), 6), (("Phó Chủ tịch Ủy ban nhân dân xã", "HC4"), 8),
    (("Bí thư Đảng ủy xã", "HC4"), 6), (("Phó Chủ tịch Hội đồng nhân dân xã", "CH4"), 5),
    (("Trưởng Công an xã", "CA5"), 6), (("Chỉ huy trưởng Ban Chỉ huy quân sự xã", "QN5"), 4),
    (("Giám đốc Nông trường", "DN4"), 3),
];
/// Retired people, and those with merit.
pub(super) const RETIRED_INSURANCE: &[(&str, i64)] = &[("HT3", 8), ("CC1", 1), ("CK2", 1)];

/// The clinicians of a health room; none is a person.
#[rustfmt::skip]
pub(super) const CLINICIANS: &[&str] = &[
    "BS. Trần Thị Vân Anh", "BSCKI. Hoàng Đức Thiện", "BS. Nguyễn Hữu Phước", "BSCKII. Đặng Thị Minh Nguyệt",
    "YS. Vàng Thị Dợ", "BS. Lê Quốc Bảo",
];

/// A chronic illness, how many in a hundred have it, and what is prescribed for it.
pub(super) struct Illness {
    pub icd: &'static str,
    pub name: &'static str,
    pub percent: i64,
    pub medicines: &'static [Medicine],
}

/// A medicine and how it is taken.
pub(super) struct Medicine {
    pub atc: &'static str,
    pub name: &'static str,
    /// How many tablets at a time.
    pub tablets: &'static str,
    /// How often a day.
    pub times: i64,
    /// When: a code of FHIR's EventTiming, and in words.
    pub when: (&'static str, &'static str),
}

const MORNING: (&str, &str) = ("MORN", "buổi sáng");
const EVENING: (&str, &str) = ("EVE", "buổi tối");
const WITH_MEALS: (&str, &str) = ("PC", "sau ăn");
const BEFORE_MEALS: (&str, &str) = ("AC", "trước ăn 30 phút");

const fn medicine(
    atc: &'static str,
    name: &'static str,
    tablets: &'static str,
    times: i64,
    when: (&'static str, &'static str),
) -> Medicine {
    Medicine { atc, name, tablets, times, when }
}

#[rustfmt::skip]
pub(super) const ILLNESSES: &[Illness] = &[
    Illness { icd: "I10", name: "Bệnh tăng huyết áp vô căn (nguyên phát)", percent: 35, medicines: &[
        medicine("C08CA01", "Amlodipin 5 mg", "1", 1, MORNING),
        medicine("C09CA01", "Losartan 50 mg", "1", 1, MORNING),
        medicine("C09AA04", "Perindopril 4 mg", "1", 1, MORNING)] },
    Illness { icd: "E11", name: "Bệnh đái tháo đường típ 2", percent: 14, medicines: &[
        medicine("A10BA02", "Metformin 850 mg", "1", 2, WITH_MEALS),
        medicine("A10BB09", "Gliclazid MR 30 mg", "2", 1, MORNING)] },
    Illness { icd: "E78", name: "Rối loạn chuyển hóa lipoprotein và tình trạng tăng lipid máu khác", percent: 28,
        medicines: &[
            medicine("C10AA05", "Atorvastatin 10 mg", "1", 1, EVENING),
            medicine("C10AA07", "Rosuvastatin 10 mg", "0.5", 1, EVENING)] },
    Illness { icd: "K29", name: "Viêm dạ dày và tá tràng", percent: 22, medicines: &[
        medicine("A02BC05", "Esomeprazol 40 mg", "1", 1, BEFORE_MEALS)] },
    Illness { icd: "M54", name: "Đau lưng", percent: 20, medicines: &[
        medicine("M01AC06", "Meloxicam 7,5 mg", "1", 1, WITH_MEALS),
        medicine("N02BE01", "Paracetamol 500 mg", "1", 3, WITH_MEALS)] },
    Illness { icd: "M10", name: "Bệnh gút", percent: 9, medicines: &[
        medicine("M04AA01", "Allopurinol 300 mg", "0.5", 1, WITH_MEALS)] },
    Illness { icd: "K76", name: "Bệnh gan khác (gan nhiễm mỡ)", percent: 16, medicines: &[] },
    Illness { icd: "H52", name: "Tật khúc xạ và rối loạn điều tiết", percent: 15, medicines: &[] },
];

/// An allergy: its ATC code if it is to a medicine, its name, FHIR's category, and the reaction.
pub(super) const ALLERGIES: &[(Option<&str>, &str, &str, &str)] = &[
    (Some("J01CE01"), "Penicilin", "medication", "Phản vệ"),
    (Some("J01EE01"), "Co-trimoxazol", "medication", "Ban đỏ toàn thân"),
    (Some("J01DD04"), "Ceftriaxon", "medication", "Nổi mày đay"),
    (Some("N02BA01"), "Aspirin", "medication", "Phù mạch"),
    (None, "Tôm, cua", "food", "Nổi mày đay"),
    (None, "Phấn hoa", "environment", "Viêm mũi, ngứa mắt"),
];

/// What everyone who opens the record must see first.
pub(super) const FLAGS: &[(&str, &str)] = &[
    ("clinical", "Đang dùng thuốc chống đông: hỏi trước khi làm thủ thuật"),
    ("safety", "Nguy cơ té ngã cao"),
    ("clinical", "Tiền sử phản vệ: chuẩn bị adrenalin trước khi tiêm"),
    ("contact", "Nghe kém: cần nói to, viết ra giấy"),
];

/// A measurement: LOINC code and name, Vietnamese name, unit, and the range of the healthy as text.
pub(super) struct Test {
    pub loinc: &'static str,
    pub name: &'static str,
    pub vietnamese: &'static str,
    pub category: (&'static str, &'static str),
    pub unit: (&'static str, &'static str),
    pub range: Option<(&'static str, &'static str)>,
}

const VITAL: (&str, &str) = ("vital-signs", "Vital Signs");
const LABORATORY: (&str, &str) = ("laboratory", "Laboratory");

const fn test(
    loinc: &'static str,
    name: &'static str,
    vietnamese: &'static str,
    category: (&'static str, &'static str),
    unit: (&'static str, &'static str),
    range: Option<(&'static str, &'static str)>,
) -> Test {
    Test { loinc, name, vietnamese, category, unit, range }
}

const MMOL: (&str, &str) = ("mmol/L", "mmol/L");
const MMHG: (&str, &str) = ("mmHg", "mm[Hg]");

#[rustfmt::skip]
pub(super) const BLOOD_PRESSURE: Test = test(
    "85354-9", "Blood pressure panel with all children optional", "Huyết áp", VITAL, MMHG, None);
#[rustfmt::skip]
pub(super) const SYSTOLIC: Test = test(
    "8480-6", "Systolic blood pressure", "Huyết áp tâm thu", VITAL, MMHG, Some(("90", "139")));
#[rustfmt::skip]
pub(super) const DIASTOLIC: Test = test(
    "8462-4", "Diastolic blood pressure", "Huyết áp tâm trương", VITAL, MMHG, Some(("60", "89")));
#[rustfmt::skip]
pub(super) const PULSE: Test = test(
    "8867-4", "Heart rate", "Mạch", VITAL, ("lần/phút", "/min"), Some(("60", "100")));
pub(super) const HEIGHT: Test = test("8302-2", "Body height", "Chiều cao", VITAL, ("cm", "cm"), None);
pub(super) const WEIGHT: Test = test("29463-7", "Body weight", "Cân nặng", VITAL, ("kg", "kg"), None);
#[rustfmt::skip]
pub(super) const BMI: Test = test(
    "39156-5", "Body mass index (BMI) [Ratio]", "Chỉ số khối cơ thể", VITAL, ("kg/m2", "kg/m2"),
    Some(("18.5", "22.9")));
#[rustfmt::skip]
pub(super) const GLUCOSE: Test = test(
    "14771-0", "Fasting glucose [Moles/volume] in Serum or Plasma", "Glucose máu lúc đói", LABORATORY, MMOL,
    Some(("3.90", "6.40")));
#[rustfmt::skip]
pub(super) const HBA1C: Test = test(
    "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "HbA1c", LABORATORY, ("%", "%"), Some(("4.0", "6.0")));
#[rustfmt::skip]
pub(super) const CHOLESTEROL: Test = test(
    "14647-2", "Cholesterol [Moles/volume] in Serum or Plasma", "Cholesterol toàn phần", LABORATORY, MMOL,
    Some(("3.90", "5.20")));
#[rustfmt::skip]
pub(super) const TRIGLYCERIDE: Test = test(
    "14927-8", "Triglyceride [Moles/volume] in Serum or Plasma", "Triglycerid", LABORATORY, MMOL,
    Some(("0.46", "1.88")));
#[rustfmt::skip]
pub(super) const HDL: Test = test(
    "14646-4", "Cholesterol in HDL [Moles/volume] in Serum or Plasma", "HDL-cholesterol", LABORATORY, MMOL,
    Some(("0.90", "2.00")));
#[rustfmt::skip]
pub(super) const LDL: Test = test(
    "22748-8", "Cholesterol in LDL [Moles/volume] in Serum or Plasma", "LDL-cholesterol", LABORATORY, MMOL,
    Some(("1.00", "3.40")));
#[rustfmt::skip]
pub(super) const CREATININE: Test = test(
    "14682-9", "Creatinine [Moles/volume] in Serum or Plasma", "Creatinin máu", LABORATORY,
    ("µmol/L", "umol/L"), Some(("53", "106")));
#[rustfmt::skip]
pub(super) const URATE: Test = test(
    "14933-6", "Urate [Moles/volume] in Serum or Plasma", "Acid uric máu", LABORATORY,
    ("µmol/L", "umol/L"), Some(("180", "420")));
